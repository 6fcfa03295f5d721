"""The modules of examples/dialogue_graph, without calls and without a queue."""

from __future__ import annotations

import importlib
import json
import random
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batchq.manifest.loader import load_manifest
from batchq.planning.planner import iter_items, make_plan

pytest.importorskip("networkx")

EXAMPLE = Path(__file__).parents[2] / "examples/dialogue_graph"
MODULES = ("beats", "figures", "topology", "growth", "api_server", "run_batch")


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A copy of the example, and its modules."""
    left = shutil.ignore_patterns("outputs", ".batchq", "__pycache__", "extensions", "*.jsonl")
    shutil.copytree(EXAMPLE, tmp_path / "example", ignore=left)
    monkeypatch.syspath_prepend(tmp_path / "example")
    monkeypatch.chdir(tmp_path / "example")
    monkeypatch.delenv("API_BASE", raising=False)
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    for name in MODULES:
        sys.modules.pop(name)


def grow(example: Any, count: int, sampling: str, number: int = 1) -> dict[str, Any]:
    """A round of 50/50/50, with answers that a model could give."""
    params = {
        "count": str(count), "sampling": sampling, "round": str(number), "rounds": str(number),
        "seed": "1", "setting": "gallia:4", "run": f"{sampling}{number}",
    }  # fmt: skip
    plan = make_plan(load_manifest("manifest.yaml", params))
    given, growth, rng = plan.steps[0].spec.params, example.growth, random.Random(number)

    def beat() -> dict[str, str]:
        emotion = rng.choice(example.figures.EMOTIONS)
        return {"speaker": "one", "emotion": emotion, "text": f"said {rng.random()}"}

    walks = [item.data["walk"] for item in iter_items(plan, 1)]
    lines = [{"speaker": "one", "text": f"{rng.random()}"} for _ in range(5 * count)]
    compiled = growth.compile_translations(
        [{"walk": walk, "lines": lines[5 * at : 5 * at + 5]} for at, walk in enumerate(walks)],
        given,
    )
    links = growth.link_candidates([], given)
    assert len({one["link"] for one in links}) == len(links) == count
    answers = [
        {"link": one["link"], "verdict": rng.choice(["direct", "bridge", "reject"]),
         "bridge": beat(), "extensions": [{"emotion": "joy", "idea": "a feast"}]}
        for one in links
    ]  # fmt: skip
    growth.apply_links(answers, given)
    found = growth.extension_candidates([], given)
    extended = growth.apply_extensions(
        [{"extension": one["extension"], "beats": [beat() for _ in range(rng.randint(1, 2))]}
         for one in found],
        given,
    )  # fmt: skip
    return {"before": compiled["before"], "after": extended["after"], "compiled": compiled}


def test_a_round_of_fifty_grows_the_graph_as_the_guide_reports(example: Any) -> None:
    rounds = [grow(example, 50, "random", number) for number in (1, 2)]

    for one in rounds:
        nodes, edges = (one["after"][key] - one["before"][key] for key in ("nodes", "edges"))
        assert 120 <= nodes <= 260, one
        assert 1.25 <= edges / nodes <= 2.0, one
    history = (example.beats.find_setting("gallia:4").folder / "history.jsonl").read_text()
    assert [json.loads(line)["step"] for line in history.splitlines()] == [
        *("compile", "link", "extend") * 2
    ]


def test_guided_sampling_closes_the_gaps_to_the_reference_faster_than_random(
    example: Any,
) -> None:
    graph = example.beats.SYNTHETIC / "gallia_v4/graph.json"
    start, far = graph.read_text(), {}
    before = example.figures.distances(
        example.beats.load_graph(example.beats.find_setting("gallia"))
    )
    for sampling in ("random", "guided"):
        graph.write_text(start)
        far[sampling] = [
            grow(example, 25, sampling, number)["compiled"]["distance_to_reference"]
            for number in (1, 2)
        ]

    for name in ("transitions", "arcs"):
        fallen = {
            sampling: sum(before[name] - one[name] for one in far[sampling]) for sampling in far
        }
        assert fallen["guided"] > 1.15 * fallen["random"] > 0, (name, before, far)


def test_guided_links_keep_the_topology_nearer_to_the_reference(example: Any) -> None:
    grow(example, 40, "random")
    graph = example.beats.load_graph(example.beats.find_setting("gallia:4"))
    goal = example.beats.reference()

    def far(*, is_guided: bool) -> tuple[float, float]:
        grown = graph.copy()
        pairs = example.topology.choose_pairs(graph, 40, random.Random(1), is_guided=is_guided)
        grown.add_edges_from(pairs)
        made = (example.figures.topology, example.figures.transitions)
        return tuple(example.figures.distance(one(grown), one(goal)) for one in made)

    guided, drawn = far(is_guided=True), far(is_guided=False)

    assert guided[0] < drawn[0] - 0.02
    assert guided[1] < drawn[1]


def test_compiling_twice_or_with_other_words_adds_nothing_twice(example: Any) -> None:
    params = {"setting": "gallia:4", "run": "r", "round": 1}
    items = [
        {"walk": walk, "lines": [{"speaker": "a", "text": f"{walk} {at}"} for at in range(5)]}
        for walk in ("fe1-fe2-fe4-fe7-fe8", "st1-st2-st4-st6-st8", "st1-st3-st5-st6-st8")
    ]
    first = example.growth.compile_translations(items, params)["after"]
    items[1]["lines"][1]["text"] = "mended"

    again = example.growth.compile_translations(items, params)["after"]

    graph = example.beats.load_graph(example.beats.find_setting("gallia:4"))
    assert again == first
    assert first["nodes"] == 24 + 1 + 5 + 2, "other words for the middle of what was there"
    assert graph.nodes["t-st2"]["text"] == "mended"
    assert graph.nodes["t-fe1"]["run"] == "by hand"


def test_beats_of_the_same_words_and_emotion_become_one(example: Any) -> None:
    lines = [{"speaker": "a", "text": text} for text in "vwxyz"]
    other = [{"speaker": "b", "text": text} for text in ("V!", "w 2", "x 2", "y 2", "z 2")]
    items = [
        {"walk": "st1-st2-st4-st6-st8", "lines": lines},
        {"walk": "ni1-ni2-ni4-ni6-ni8", "lines": other},
    ]

    example.growth.compile_translations(items, {"setting": "gallia", "run": "r", "round": 1})

    graph = example.beats.load_graph(example.beats.find_setting("gallia"))
    assert "t-ni1" not in graph, "fear, and the words of t-st1"
    assert graph.has_edge("t-st1", "t-ni2")


def test_the_shapes_of_arcs_are_those_of_all_walks(example: Any) -> None:
    graph = example.beats.reference()
    walks = list(example.beats.reference_walks())

    shapes = Counter(
        example.figures.arc(graph.nodes[beat]["emotion"] for beat in walk) for walk in walks
    )

    assert len(walks) == 959
    assert shapes == example.figures.arcs(graph)


BAD = {
    "unknown setting": ("full galia 5", "did you mean gallia? there are: gallia:3, gallia:4, mar"),
    "unknown version": ("full gallia:9 5", "gallia has no version 9; there are: gallia:3"),
    "no number": ("link gallia:x 5", "gallia:x: expected a number as version, such as gallia:4"),
    "twice": ("full gallia,gallia:4 5", "gallia:4 is there twice"),
    "count of nothing": ("translate gallia 0", "count: 0 is nothing to do, expected 1 or more"),
    "more than walks": ("full gallia:4 960", "count: the reference has 959 walks, not 960"),
    "more than links": ("link gallia:3 99", "count: gallia:3 has room for 45 links, not 99"),
    "no candidates": (
        "extend gallia 5 --source-run link_x",
        "link_x brought no extension candidates for gallia:4; runs that did: some",
    ),
    "fewer candidates": (
        "extend gallia 5 --source-run some",
        "count: that run brought 1 extension candidates for gallia:4, not 5",
    ),
    "no translations": (
        "compile gallia --source-run run_x",
        "--source-run run_x: no such run with translations; there are: none yet",
    ),
}


@pytest.mark.parametrize(("command", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_told_before_anything_is_begun(
    example: Any, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    setting = example.beats.find_setting("gallia")
    example.beats.keep_extensions(setting, "some", [{"node": "t-fe1"}])

    code = example.run_batch.main(command.split())

    assert code == 2
    assert message in capsys.readouterr().err
    assert not (example.beats.HERE / "outputs").exists()


def test_what_a_killed_step_left_is_in_nobodys_way(example: Any) -> None:
    folder = example.beats.find_setting("gallia").folder
    (folder / "graph.4711").write_text('{"nodes": [')  # it had not taken the graph's place yet
    (folder / ".lock").write_text("")
    (folder / "extensions").mkdir()
    (folder / "extensions/link_1.4711").write_text("[")

    with example.beats.changing(example.beats.find_setting("gallia"), "r", "link") as graph:
        graph.add_edge("t-ma8", "t-fe1", run="r/1")

    assert example.figures.stats(example.beats.find_setting("gallia"))["edges"] == 34
    with pytest.raises(example.beats.InputError, match="runs that did: none"):
        example.beats.read_extensions(example.beats.find_setting("gallia"), "link_1")


def test_the_latest_version_is_found_and_a_broken_graph_is_named(example: Any) -> None:
    beats = example.beats
    assert [str(one) for one in beats.find_settings("gallia,marmotte:2")] == [
        *("gallia:4", "marmotte:2")
    ]
    newer = shutil.copytree(beats.SYNTHETIC / "gallia_v4", beats.SYNTHETIC / "gallia_v10")
    assert str(beats.find_setting("gallia")) == "gallia:10"

    (newer / "graph.json").write_text('{"nodes": [')

    with pytest.raises(beats.InputError, match=r"gallia_v10/graph.json: not a graph: .*restore"):
        beats.load_graph(beats.find_setting("gallia"))


def test_stats_come_from_the_command_line_and_over_http(
    example: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert example.run_batch.main(["stats", "gallia"]) == 0
    printed = json.loads(capsys.readouterr().out)

    class Quiet(example.api_server.Handler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("API_BASE", f"http://127.0.0.1:{server.server_port}")
        codes = [example.run_batch.main(["stats", name]) for name in ("gallia:4", "galia")]
        server.shutdown()
        thread.join()
    monkeypatch.setenv("API_BASE", "http://127.0.0.1:1")
    nobody = example.run_batch.main(["stats", "gallia"])

    said = capsys.readouterr()
    assert json.loads(said.out) == printed
    assert (printed["nodes"], printed["edges"], printed["version"]) == (24, 33, 4)
    assert set(printed["distance_to_reference"]) == {"transitions", "arcs", "topology"}
    assert codes == [0, 2]
    assert "did you mean gallia?" in said.err
    assert nobody == 2
    assert "API_BASE: nobody answers at http://127.0.0.1:1/api" in said.err
