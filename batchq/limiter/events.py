"""What the limiter tells in the log, in words for people."""

from __future__ import annotations


def describe(provider: str, event: str) -> str:
    """A sentence for one event of a script."""
    word, *values = event.split()
    match word:
        case "told":
            return (
                f"provider {provider} allows less than was given: {float(values[1]):g} {values[0]}"
            )
        case "cut":
            before, after = (float(value) for value in values[1:])
            return (
                f"provider {provider} refused a call at {before:.4g} {values[0]}: "
                f"going on with {after:.4g}"
            )
        case "open":
            return f"provider {provider} does not answer: no calls but one now and then to try"
        case "closed":
            return f"provider {provider} answers again"
    return f"provider {provider}: {event}"
