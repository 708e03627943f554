"""Whether pools fit on a cluster is known before anything starts, and what is missing is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazetteer.data.core.errors import InputError
from gazetteer.jobs.config.pools import LimitConfig, PoolConfig
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.executors.ray.executor import Pools
from gazetteer.jobs.executors.ray.placement import Node, place
from gazetteer.jobs.executors.ray.session import Session
from gazetteer.jobs.executors.task import Task
from gazetteer.labeling.pipeline.config import STAGES
from tests.support.system import toy_work

GPU = Node({"CPU": 4, "GPU": 1, "diffusion": 1}, {"market": "spot"})
CPU = Node({"CPU": 8, "detect": 2}, {"market": "on-demand"})


def sizes(*pools: PoolConfig, nodes: list[Node]) -> list[int]:
    return [pool.workers for pool in place(pools, nodes).pools]


def test_fixed_pools_keep_their_sizes_and_open_ones_share_what_is_left() -> None:
    generate = PoolConfig(("generate",), 0, gpus=0.5)
    rest = PoolConfig(("detect", "segment", "evidence"), 0)
    assert sizes(generate, rest, nodes=[GPU, CPU]) == [2, 10], "two share the device; the others take what CPUs remain"
    assert sizes(PoolConfig(("generate",), 1, gpus=1), rest, nodes=[GPU]) == [1, 3]


def test_custom_resources_and_labels_say_where() -> None:
    assert sizes(PoolConfig(("a",), 0, resources={"detect": 1}), nodes=[GPU, CPU]) == [2]
    assert sizes(PoolConfig(("a",), 0, labels={"market": "spot"}), nodes=[GPU, CPU]) == [4]


@pytest.mark.parametrize(
    ("selector", "room"),
    [("on-demand", 8), ("!on-demand", 6), ("in(on-demand,spot)", 12), ("in(gone, spot)", 4), ("!in(spot, gone)", 10)],
)
def test_labels_are_selected_as_ray_selects_them(selector: str, room: int) -> None:
    nodes = [GPU, CPU, Node({"CPU": 2}, {})]
    assert sizes(PoolConfig(("a",), 0, labels={"market": selector}), nodes=nodes) == [room]


@pytest.mark.parametrize(
    ("pool", "says"),
    [
        (PoolConfig(("generate",), 2, gpus=1.0), r"generate needs 2 workers with CPU 1, GPU 1 .* room for 1.*GPU"),
        (
            PoolConfig(("detect",), 1, resources={"tpu": 1}),
            r"detect needs 1 workers with CPU 1, tpu 1 .*too little tpu",
        ),
        (PoolConfig(("detect",), 1, memory_gib=64.0), r"memory 64.0 GiB"),
        (PoolConfig(("detect",), 1, cpus=9.0), r"room for 0: too little CPU; the nodes have: CPU 4"),
        (PoolConfig(("detect",), 1, labels={"market": "gone"}), r"on a node labelled market=gone"),
    ],
)
def test_what_is_missing_is_named(pool: PoolConfig, says: str) -> None:
    with pytest.raises(InputError, match=says):
        place([pool], [GPU, CPU])


def test_workers_are_spread_over_the_nodes_unless_fewer_would_fit() -> None:
    machines = [Node({"CPU": 8, "GPU": 4}, {})] * 2
    assert [sorted(on) for on in place([PoolConfig(("a",), 2)], machines).nodes] == [[0, 1]]
    assert [sorted(on) for on in place([PoolConfig(("a",), 6, gpus=1.0)], machines).nodes] == [[0, 0, 0, 1, 1, 1]]
    halves, whole = PoolConfig(("a",), 2, gpus=0.5), PoolConfig(("b",), 1, gpus=1.0)
    single = [Node({"CPU": 8, "GPU": 1}, {})] * 2
    assert place([halves, whole], single).nodes == [[1, 1], [0]], "the whole device is taken first"


def test_a_model_on_cuda_implies_a_gpu_for_each_worker() -> None:
    whole = load_config(None, ["model.device=cuda", "workers=3"]).all_pools
    assert whole == (PoolConfig(STAGES, 3, gpus=1.0),)
    pools = "pools=[{stages: [generate], gpus: 0.5}, {stages: [detect, segment]}, {stages: [evidence]}]"
    placed = load_config(None, [pools, "model.device=cuda:0", "segmenter.device=cuda"]).all_pools
    assert [pool.demand.get("GPU") for pool in placed] == [0.5, 1.0, None]
    with pytest.raises(InputError, match=r"model of generate on cuda and asks for gpus: 0; leave gpus out"):
        load_config(None, ["model.device=cuda", "pools=[{stages: [generate, detect, segment, evidence], gpus: 0}]"])
    with pytest.raises(InputError, match=r"3 workers with CPU 1, GPU 1 each.*state gpus: 0.5 in pools"):
        place(whole, [Node({"CPU": 8, "GPU": 1}, {})])


def test_a_need_must_fit_on_one_node() -> None:
    with pytest.raises(InputError, match="GPU 1, detect 1"):
        place([PoolConfig(("a",), 1, gpus=1.0, resources={"detect": 1})], [GPU, CPU])


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=4),
    st.lists(st.integers(1, 8), min_size=1, max_size=4),
)
def test_what_is_placed_fits(wanted: list[tuple[int, float]], cpus: list[int]) -> None:
    pools = [PoolConfig((f"s{at}",), workers, cpus=need) for at, (workers, need) in enumerate(wanted)]
    try:
        placed = place(pools, [Node({"CPU": count}, {}) for count in cpus]).pools
    except InputError:
        return
    assert sum(pool.workers * pool.cpus for pool in placed) <= sum(cpus)
    for pool, asked in zip(placed, pools, strict=True):
        assert pool.workers == asked.workers if asked.workers else pool.workers >= 1


def test_pools_come_from_the_configuration() -> None:
    first = "{stages: [generate], workers: 3, gpus: 0.5, resources: {diffusion: 1}, labels: {market: spot}}"
    text = f"pools=[{first}, {{stages: [detect, segment, evidence]}}]"
    generate, rest = load_config(None, [text]).all_pools
    assert generate == PoolConfig(("generate",), 3, gpus=0.5, resources={"diffusion": 1}, labels={"market": "spot"})
    assert generate.demand == {"CPU": 1.0, "GPU": 0.5, "diffusion": 1.0}
    assert (rest.name, rest.workers) == ("detect+segment+evidence", 0)
    assert load_config(None, ["workers=5"]).all_pools == (PoolConfig(STAGES, 5),)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("pools=[{stages: [generate]}]", "together and in order they must be generate, detect, segment, evidence"),
        ("pools=[{stages: [detect, generate, segment, evidence]}]", "in order"),
        ("pools=[{stages: [generate], gpu: 1}]", r"Unknown configuration key pools\[0\].gpu"),
        ("pools=[{stages: [generate], gpus: -1}]", r"pools\[0\].gpus must be at least 0"),
        ("pools=[{resources: {x: 0}}]", r"pools\[0\].resources.x must be above 0"),
        ("pools=[{resources: 3}]", "must be a mapping"),
        ("limits.attempts=0", "limits.attempts must be at least 1"),
        ("limits.picture_seconds=.nan", "limits.picture_seconds"),
        ("workers=-1", "workers must be at least 0"),
    ],
)
def test_bad_pools_and_limits_get_a_sentence(setting: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_config(None, [setting])


def test_a_task_that_brings_its_workers_needs_no_room_for_the_models_when_it_comes_alone() -> None:
    """As the tables of a run that was made on GPUs, on a machine without."""

    class Ray:
        """Of one machine."""

        @staticmethod
        def nodes() -> list[dict[str, Any]]:
            return [{"Alive": True, "NodeID": "n", "Resources": {"CPU": 2.0}, "Labels": {}}]

        @staticmethod
        def put(task: Task) -> Task:
            return task

    on_gpus = PoolConfig(("generate",), 2, gpus=1.0)
    pools = Pools(Session(Ray), [on_gpus], LimitConfig(), 0.0)
    own = Task(toy_work.Squarer, toy_work.join, toy_work.lost, pool=PoolConfig(workers=0))
    (served,) = pools.serve(own)
    assert served.config.workers == 2
    with pytest.raises(InputError, match="The pool generate needs 2 workers with CPU 1, GPU 1 each"):
        pools.serve(replace(own, pool=None))
