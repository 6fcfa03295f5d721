"""The stack that starts with `batchq submit` where no broker is configured."""
