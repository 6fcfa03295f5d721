"""Varies a mapping of themes, and compares two mappings."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

SCHEMA = json.loads((Path(__file__).parent / "schemas/themes.json").read_text())
THEMES = SCHEMA["properties"]["themes"]["items"]["enum"]


def vary(item: dict, params: dict) -> dict:
    """Changes one theme of a response, for a `variation` share of them; keeps both lists.

    What is changed depends on the seed and the response alone, so a run again changes the same.
    """
    rng = random.Random(f"{params['seed']}/{item['response_id']}")
    themes = list(item["themes"])
    if rng.random() < params["variation"]:
        others = [theme for theme in THEMES if theme not in themes]
        themes[rng.randrange(len(themes))] = rng.choice(others)
    return {"themes": themes, "themes_before": item["themes"]}


def compare(items: list[dict], params: dict, context: object) -> dict:
    """Says how far the two mappings agree, as figures and as a summary in Markdown."""
    pairs = [(set(item["themes_before"]), set(item["themes"])) for item in items]
    per_theme = {theme: _of_theme(theme, pairs) for theme in THEMES}
    figures = {
        "responses": len(pairs),
        "variation": params["variation"],
        "exact_agreement": _mean(one == other for one, other in pairs),
        "mean_jaccard": _mean(len(one & other) / len(one | other) for one, other in pairs),
        "mean_kappa": _mean(row["kappa"] for row in per_theme.values() if row["kappa"] is not None),
        "themes": per_theme,
    }
    (context.output / "summary.md").write_text(_summary(figures))
    return figures


def _of_theme(theme: str, pairs: list[tuple[set, set]]) -> dict:
    """Counts of a theme, and Cohen's kappa of the two mappings on it.

    Kappa is None for a theme that all or none of the responses have in both: chance explains it.
    """
    table = Counter((theme in one, theme in other) for one, other in pairs)
    first = table[True, True] + table[True, False]
    second = table[True, True] + table[False, True]
    total = len(pairs)
    agreed = (table[True, True] + table[False, False]) / total
    by_chance = (first * second + (total - first) * (total - second)) / total**2
    kappa = None if by_chance == 1 else round((agreed - by_chance) / (1 - by_chance), 4)
    return {"first": first, "second": second, "agreement": round(agreed, 4), "kappa": kappa}


def _mean(values: object) -> float:
    numbers = list(values)
    return round(sum(numbers) / len(numbers), 4) if numbers else 0.0


def _summary(figures: dict) -> str:
    rows = sorted(figures["themes"].items(), key=lambda row: -row[1]["first"])
    lines = [
        "# Agreement of two theme mappings",
        "",
        f"{figures['responses']} responses; the second mapping varies {figures['variation']:.0%}.",
        "",
        f"- the same themes: {figures['exact_agreement']:.1%} of the responses",
        f"- mean Jaccard index: {figures['mean_jaccard']:.3f}",
        f"- mean Cohen's kappa over the themes: {figures['mean_kappa']:.3f}",
        "",
        "| theme | in the first | in the second | agreement | kappa |",
        "| --- | --- | --- | --- | --- |",
    ]
    for theme, row in rows:
        kappa = "" if row["kappa"] is None else f"{row['kappa']:.3f}"
        counts = f"{row['first']} | {row['second']} | {row['agreement']:.1%}"
        lines.append(f"| {theme} | {counts} | {kappa} |")
    return "\n".join(lines) + "\n"
