"""The plan of a run: passes of shards, each written down once before it starts, so that a resumed run keeps to it."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.given.open import expect_given_whole, open_given
from gazetteer.data.inputs.prompt_pool import read_prompts
from gazetteer.data.inputs.prompts import Item, Shard, make_item, planned_items, shards_of
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.fingerprint import picture_digest
from gazetteer.jobs.config.schema import RunConfig
from gazetteer.labeling.rules.coverage import choose_prompts
from gazetteer.labeling.rules.seen import COLUMNS
from gazetteer.labeling.vocabulary.concepts import Vocabulary

FIRST, COVERAGE = PASSES = ("plan-1", "plan-2")
"""The passes of a run beside its retries, by the names of their plans."""
_RETRIED = re.compile(r"-retry-(\d+)$")
"""How the id of a retry's shard ends (`retry_shards`)."""


def read_pool(config: RunConfig) -> list[str]:
    """The prompts a run may draw from, in file order; of given pictures nothing is drawn. Raises InputError."""
    expect_given_whole(config.pictures)
    if config.pictures.kind:
        return []
    return read_prompts(config.prompts)


def first_pass(pool: Sequence[str], config: RunConfig, pictures: str) -> list[Item]:
    """The first pictures, from the head of the pool: the share of the budget that coverage does not claim.

    Given pictures are all taken at once, as many as there are and `config.images` allows.
    """
    if config.pictures.kind:
        return open_given(config.pictures, config.seed).items(config.images, pictures)
    count = min(config.images, max(1, round(config.images * config.coverage.first)))
    return make_items([pool[i % len(pool)] for i in range(count)], config.seed, pictures)


def coverage_pass(
    pool: Sequence[str], shards: Sequence[Shard], store: RunFolder, config: RunConfig, pictures: str
) -> list[Item]:
    """The remaining pictures, drawn towards features and concepts that have too few in the first pass's `shards`."""
    planned = [item for shard in shards for item in shard.items]
    budget = config.images - len(planned)
    if budget <= 0 or config.pictures.kind:
        return []
    vocabulary = Vocabulary(config.vocabulary)
    used = Counter(item.prompt for item in planned)
    chosen = choose_prompts(
        pass_evidence(store, [shard.id for shard in shards]),
        [(prompt, vocabulary.mentioned(prompt)) for prompt in pool],
        set(used),
        config.coverage.wanted,
        budget,
        config.seed,
    )
    return make_items(chosen, config.seed, pictures, used)


def pass_evidence(store: RunFolder, shards: Sequence[str]) -> Iterator[pa.Table]:
    """What choosing prompts needs of the evidence of a pass's shards, or of the groups that stand for them, one by one.

    A group is of shards of one pass (`gazetteer.jobs.operate.compact`), so what it adds up to is theirs.
    """
    group_of = {shard: name for name, inside in store.grouped().items() for shard in inside}
    for name in dict.fromkeys(group_of.get(shard, shard) for shard in shards):
        yield store.read_table("evidence", [name], columns=COLUMNS, encoded=True)


def make_items(prompts: Sequence[str], seed: int, pictures: str, used: Counter[str] | None = None) -> list[Item]:
    """Items for prompts; a prompt that occurs again, here or in `used`, gets another seed."""
    items: list[Item] = []
    counts = Counter(used)
    for prompt in prompts:
        items.append(make_item(prompt, _seed(seed, prompt, counts[prompt]), pictures))
        counts[prompt] += 1
    return items


def write_pass(store: RunFolder, name: str, items: Sequence[Item], shard_size: int) -> list[Shard]:
    """Write a pass down, unless it was before; returns the shards that count."""
    plan = store.write_plan(name, _plan(items, shard_size))
    return _shards(plan, _pictures_of(store), name)


def read_pass(store: RunFolder, name: str) -> list[Shard] | None:
    """The shards of a pass that was written down, or None; InputError for a plan that was damaged or edited since."""
    plan = store.read_plan(name)
    return None if plan is None else _shards(plan, _pictures_of(store), name)


def retry_shards(items: Sequence[Item], name: str, size: int) -> list[Shard]:
    """Shards for items that failed before; the pass's name keeps their ids apart from earlier tries.

    Args:
        size: pictures of a shard; 0: one shard for all, as retries of version 0.1 were planned.
    """
    if not items:
        return []
    return [Shard(f"{shard.id}-{name}", shard.items) for shard in shards_of(items, size or len(items))]


def unmade(store: RunFolder) -> list[str]:
    """Ids of shards that were planned, by retries too, and have no record: a pass was left in its midst."""
    made = {*store.shard_ids(), *(shard for group in store.grouped().values() for shard in group)}
    retries = (f"retry-{number}" for number in itertools.count(1))
    planned: list[Shard] = []
    for name in itertools.chain(PASSES, retries):
        shards = read_pass(store, name)
        if shards is None and name not in PASSES:
            break
        planned += shards or []
    return [shard.id for shard in planned if shard.id not in made]


def without_made(store: RunFolder, name: str, shards: Sequence[Shard]) -> list[Shard]:
    """The shards of the retry `name` without pictures that are there from earlier tries: its plan is written anew.

    A shard that was damaged after some of its pictures had failed, and were made by a retry, is computed again whole,
    and then they may come through: every picture counts once.
    """
    later = int(name.rpartition("-")[2])
    earlier = [shard for shard in store.committed() if not (tried := _RETRIED.search(shard)) or int(tried[1]) < later]
    made = set(store.read_table("images", earlier, ["image_id"])["image_id"].to_pylist())
    items = [item for shard in shards for item in shard.items if item.image_id not in made]
    if len(items) == sum(len(shard.items) for shard in shards):
        return list(shards)
    size = int((store.read_plan(name) or {})["shard_size"])
    left = retry_shards(items, name, size)
    for shard in {shard.id for shard in shards} - {shard.id for shard in left}:
        store.drop_shard(shard)  # before its plan: no shard may count that no plan names
    store.write_plan(name, _plan(items, size), over=True)
    return left


def _plan(items: Sequence[Item], shard_size: int) -> dict[str, Any]:
    rows = [{"prompt": i.prompt, "seed": i.seed, "image_id": i.image_id} for i in items]
    return {"shard_size": shard_size, "items": rows}


def _pictures_of(store: RunFolder) -> str:
    return picture_digest(store.read_json("run.json") or {})


def _shards(plan: dict[str, Any], pictures: str, name: str) -> list[Shard]:
    items, size = planned_items(plan.get("items"), pictures, f"plan {name}.json of this run"), plan.get("shard_size")
    if not isinstance(size, int):
        raise InputError(f"The plan {name}.json of this run is damaged: it does not say how many pictures a shard has.")
    return retry_shards(items, name, size) if name not in PASSES else shards_of(items, size)


def _seed(base: int, prompt: str, use: int) -> int:
    """A picture's seed: of the run's seed, its prompt and how often the prompt was used before it."""
    return int.from_bytes(hashlib.sha256(f"{base}/{use}/{prompt}".encode()).digest()[:6], "big")
