"""From text to values and back: prompts, answers, schemas, conditions, tables, amounts."""
