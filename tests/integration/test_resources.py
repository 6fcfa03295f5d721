from __future__ import annotations

import textwrap
from itertools import pairwise

TASKS = """
    import time
    from pathlib import Path

    HERE = Path(__file__).parent

    def works(config):
        began = time.time()
        time.sleep(0.3)
        return [began, time.time()]
"""

MANIFEST = """
    name: heavy
    task: "cluster_tasks:works"
    config: {{resources: {resources}}}
    matrix: {{axes: {{n: [1, 2, 3]}}}}
"""


def test_jobs_share_a_host_and_one_that_fits_nowhere_fails(cluster):
    (cluster.folder / "cluster_tasks.py").write_text(textwrap.dedent(TASKS))
    cluster.coordinator()
    cluster.worker("-P", "prefork", "-c", "2")

    shared = cluster.finish(cluster.submit(MANIFEST.format(resources="{slots: 2}")))
    large = cluster.finish(cluster.submit(MANIFEST.format(resources="{memory: 900T}")))

    spans = sorted(one.output for one in shared.outcomes(1))
    assert len(spans) == 3
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert {one.error.kind for one in large.outcomes(1)} == {"resources"}
