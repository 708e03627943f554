"""Pages find a run's autoencoders however its configuration named them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.data.runs.folder import RunFolder
from gazetteer.jobs.config.schema import load_config
from gazetteer.jobs.experiments.decoders import decoders_of
from gazetteer.sae.model.digests import as_recorded, digest_saes

SAES = Path(str(load_config().saes))
SITE = Site("mid_block.attentions.0", "cond", 0.5)


def run_of(path: Path, saes: object) -> RunFolder:
    (path / "_meta").mkdir(parents=True)
    (path / "_meta" / "run.json").write_text(json.dumps({"saes": saes}))
    return RunFolder(path)


def test_a_folder_that_a_mapping_named_is_the_runs_own(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", digest_saes({"*": str(SAES)}))
    for given in (str(SAES), {"*": str(SAES)}, None):
        decoder = decoders_of(run, given)
        assert decoder is not None and decoder(SITE).ndim == 2
    with pytest.raises(InputError, match="holds other autoencoders than those"):
        decoders_of(run, str(SAES / SITE.slug))


def test_so_is_the_folder_in_which_those_of_several_patterns_lie(tmp_path: Path) -> None:
    for name, slug in (("one", SITE.slug), ("two", SITE.slug.replace("0.50", "1.00"))):
        shutil.copytree(SAES / slug, tmp_path / "saes" / name)
    mapping = {"*@0.5": str(tmp_path / "saes" / "one"), "*": str(tmp_path / "saes" / "two")}
    (tmp_path / "saes" / "empty").mkdir()
    recorded = digest_saes(mapping)
    assert as_recorded(str(tmp_path / "saes"), recorded) == mapping
    run = run_of(tmp_path / "run", recorded)
    with pytest.raises(InputError, match=r"made with \(several: "):
        decoders_of(run, str(tmp_path / "saes" / "one"))
    assert decoders_of(run, None) is not None, "copies of embedded ones"
    other = run_of(tmp_path / "other", {"*": "sha256:0"})
    assert decoders_of(other, None) is None
    shutil.rmtree(tmp_path / "saes" / "two")
    assert as_recorded(str(tmp_path / "saes"), recorded) is None
