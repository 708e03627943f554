"""Where a site's autoencoder is: a folder of sites, or patterns of sites with what serves them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gazetteer.data.core.errors import InputError
from gazetteer.data.core.sites import Site
from gazetteer.sae.model.checkpoint import load_site_saes, other_model
from gazetteer.sae.model.patterns import SitePattern, chosen
from gazetteer.sae.model.sources import configs, places, require_used, unfinished_sites
from tests.sae.formats.test_diffract import write as write_diffract
from tests.sae.model.test_autoencoder import random_sae

MID, UP = "mid_block.attentions.0", "up_blocks.1.attentions.0"
SITES = sorted(Site(block, branch, t) for block in (MID, UP) for branch in ("cond", "uncond") for t in (1.0, 0.5))


@pytest.mark.parametrize(
    ("text", "blocks", "count"),
    [
        ("*", {MID, UP}, 8),
        (MID, {MID}, 4),
        ("up_blocks.*", {UP}, 4),
        ("*attentions.0", {MID, UP}, 8),
        ("mid_block*-cond", {MID}, 2),
        ("*-t0.50", {MID, UP}, 4),
        ("*-t0.5", {MID, UP}, 4),
        ("*-image-update-uncond-t1", {MID, UP}, 2),
        (SITES[0].slug, {MID}, 1),
        ("block=up_*, branch=cond,t=1", {UP}, 1),
        ("branch=cond", {MID, UP}, 4),
        ("stream=text", set(), 0),
        ("*-output", set(), 0),
        ("mid_block.attentions.*0.0", set(), 0),
        ("mid?block*", set(), 0),
    ],
)
def test_a_pattern_matches_what_it_says(text: str, blocks: set[str], count: int) -> None:
    matching = [site for site in SITES if SitePattern.of(text).matches(site)]
    assert {site.block for site in matching} == blocks
    assert len(matching) == count


WRONG = ["", "a=b", "block=", "block=x,block=y", "mid-conf", "mid-cond-uncond", "-cond", "t=now"]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_pattern_gets_a_sentence(text: str) -> None:
    with pytest.raises(InputError, match=r"saes: .*(no pattern of sites; accepted: a block|no number)"):
        SitePattern.of(text)


def test_a_path_where_nothing_lies_is_no_hub_id(tmp_path: Path) -> None:
    wrong = {"*": str(tmp_path / "ae.pt")}
    assert unfinished_sites(wrong, SITES[:1]) == [SITES[0].slug]
    with pytest.raises(InputError, match=rf"has no SAE for 1 of 1 sites \(looked for {tmp_path}/ae\.pt\)"):
        configs(wrong, SITES[:1])
    assert unfinished_sites({"*": "owner/name/trainer_0/ae.pt@v2"}, SITES[:1]) == []


def test_a_wrong_value_is_named() -> None:
    with pytest.raises(InputError, match="asks for branch 'both'; accepted: cond, uncond, "):
        SitePattern.of("branch=both")


def test_the_most_specific_pattern_serves_a_site() -> None:
    found, idle = chosen(["*", MID, f"{MID}-cond", SITES[0].slug, "mid*", "down*"], SITES)
    assert idle == ["down*"]
    assert found[Site(UP, "cond", 1.0)] == "*"
    assert found[Site(MID, "uncond", 1.0)] == MID
    assert found[Site(MID, "cond", 1.0)] == f"{MID}-cond"
    assert found[SITES[0]] == SITES[0].slug


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (MID, "*-cond"),
        (MID, f"block={MID}"),
        ("*-cond", "*-t1.00"),
        ("up_blocks.*", "*.attentions.0"),
        ("mid_block*-cond", "*.attentions.0"),
        ("mid_block*", "*0-cond-t1.00"),
    ],
)
def test_two_patterns_of_which_neither_says_more_are_refused(first: str, second: str) -> None:
    with pytest.raises(InputError, match=r"both match .* and neither is more specific; add one that says more"):
        chosen(["*", first, second], SITES)


def test_one_autoencoder_serves_many_sites_and_is_loaded_once(tmp_path: Path) -> None:
    random_sae(6, 12, 3).save_pretrained(tmp_path / "one", {"site": SITES[0]})
    up = Site(UP, "cond", 0.5)
    random_sae(6, 8, 2).save_pretrained(tmp_path / "other" / up.slug, {"site": up})
    saes = {MID: str(tmp_path / "one"), f"{UP}-cond-t0.50": str(tmp_path / "other")}
    wanted = [site for site in SITES if site.block == MID or site == up]
    loaded = load_site_saes(saes, wanted)
    assert list(loaded) == wanted
    assert len({id(sae) for sae in loaded.values()}) == 2
    assert [configs(saes, wanted)[site]["n"] for site in wanted] == [12, 12, 12, 12, 8]
    assert places(saes, [wanted[-1]]) == {wanted[-1]: tmp_path / "other" / wanted[-1].slug}, "a folder of sites"
    require_used(saes, wanted)
    with pytest.raises(InputError, match=r"the pattern 'up_blocks.*' matches none of the sites: mid_block"):
        require_used(saes, wanted[:2])


def test_a_pattern_does_not_move_an_autoencoder_to_another_block(tmp_path: Path) -> None:
    random_sae(6, 12, 3).save_pretrained(tmp_path, {"site": SITES[0]})
    advice = re.escape(f"""saes={{"{MID}": "{tmp_path}"}}' 'generation.blocks=[{MID}]'""")
    with pytest.raises(InputError, match=rf"was trained at {MID}-cond-t0.50, not at {UP}.*{advice}"):
        load_site_saes({"*": str(tmp_path)}, SITES)
    with pytest.raises(InputError, match=rf"it is an SAE itself, of {MID}; for the sites of that block: .*{advice}"):
        load_site_saes(tmp_path, SITES)
    assert len(load_site_saes({MID: str(tmp_path)}, [site for site in SITES if site.block == MID])) == 4, "as advised"


def test_advice_names_stream_and_signal(tmp_path: Path) -> None:
    own = Site("transformer_blocks.1", "cond", 0.5, "text", "output")
    random_sae(6, 12, 3).save_pretrained(tmp_path, {"site": own, "signal": "output"})
    for saes in ({"*": str(tmp_path)}, tmp_path):
        with pytest.raises(InputError, match=re.escape("'generation.streams=[text]' 'generation.signals=[output]'")):
            load_site_saes(saes, SITES)
    assert len(load_site_saes({"transformer_blocks.1": str(tmp_path)}, [own])) == 1, "as advised"


def test_advice_names_the_usual_stream_and_signal_where_others_are_set(tmp_path: Path) -> None:
    own = Site("transformer_blocks.0", "cond", 0.5)
    random_sae(6, 12, 3).save_pretrained(tmp_path, {"site": own})
    for saes in ({"*": str(tmp_path)}, tmp_path):
        with pytest.raises(InputError, match=re.escape("'generation.streams=[image]' 'generation.signals=[update]'")):
            load_site_saes(saes, [Site("transformer_blocks.0", "cond", 0.5, "text", "output")])


def test_a_pattern_may_say_what_an_autoencoder_reads(tmp_path: Path) -> None:
    for name in ("update", "output"):
        random_sae(6, 12, 3).save_pretrained(tmp_path / name, {"signal": ""})
    wanted = [Site(MID, "cond", 0.5, signal=name) for name in ("update", "output")]
    saes = {f"*-{name}": str(tmp_path / name) for name in ("update", "output")}
    loaded = load_site_saes(saes, wanted)
    assert [loaded[site].signal for site in wanted] == ["update", "output"]
    assert load_site_saes(saes, wanted, signal="input").keys() == loaded.keys(), "a pattern says more"
    one = str(tmp_path / "update")
    with pytest.raises(InputError, match=r"does not say what it reads.*" + re.escape(f'"*-output": "{one}"')):
        load_site_saes({"*": one}, wanted)
    with pytest.raises(InputError, match="to sites of the output and of the update, and an SAE reads one of them"):
        load_site_saes({"*-output": one, "*-update": one}, wanted)


def test_where_they_are_instead_is_said_of_mappings_too(tmp_path: Path) -> None:
    for site in SITES:
        random_sae(6, 12, 3).save_pretrained(tmp_path / "trained" / "saes" / site.slug, {"site": site})
    (tmp_path / "files").mkdir()
    for name in ("sae_img_6.pt", "sae_img_12.pt"):
        write_diffract(tmp_path / "files" / name)
    for name, said in (
        ("trained", rf"they are in {tmp_path}/trained/saes: set saes to that folder"),
        ("files", r"it holds files that are an SAE each \(sae_img_12\.pt, sae_img_6\.pt\): name one of them"),
    ):
        for saes in (str(tmp_path / name), {"*": str(tmp_path / name)}):
            with pytest.raises(InputError, match=said):
                configs(saes, SITES)


def test_a_model_that_is_not_the_one_that_is_labelled_is_said_once(tmp_path: Path) -> None:
    """Of files by their digests, of a hub's models by their names; where one is the other's nobody can tell."""
    there, here = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
    for site, digest in zip(SITES, (there, there, here, None, "", "org/other", "org/model", there), strict=True):
        random_sae(6, 12, 3).save_pretrained(tmp_path / site.slug, {"site": site, "model_digest": digest})
    said = other_model(tmp_path, SITES, "models/mine", here)
    assert "the SAEs of 3 of 8 sites" in said and f"{tmp_path / SITES[0].slug} on {there[:19]}…" in said
    assert f"another model than models/mine ({here[:19]}…)" in said
    said = other_model(tmp_path, SITES, "org/model", "org/model")
    assert "1 of 8 sites" in said and f"{tmp_path / SITES[5].slug} on org/other." in said
    assert not other_model(tmp_path, SITES[2:5], "models/mine", here)


def test_weights_alone_files_and_nothing_are_told_apart(tmp_path: Path) -> None:
    random_sae(6, 12, 3).save_pretrained(tmp_path / "one")
    (tmp_path / "one" / "config.json").unlink()
    for saes in ({"*": str(tmp_path / "one")}, tmp_path / "one"):
        with pytest.raises(InputError, match=r"holds weights, but no config\.json that says what they are"):
            load_site_saes(saes, SITES)
    with pytest.raises(InputError, match=r"The file .*model\.safetensors is no SAE of a known format; name the folder"):
        load_site_saes({"*": str(tmp_path / "one" / "model.safetensors")}, SITES)
    with pytest.raises(InputError, match=r"the pattern 'mid\*' names nothing; accepted: a folder, a file or a hub id"):
        load_site_saes({"mid*": " "}, SITES)


def test_what_is_missing_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere has no SAE for 8 of 8 sites \(looked for .*nowhere/mid_b.*no such"):
        load_site_saes(tmp_path / "nowhere", SITES)
    random_sae(6, 12, 3).save_pretrained(tmp_path / "one")
    with pytest.raises(InputError, match=r"""it is an SAE itself; for every site: --set 'saes=\{"\*": ".*one"\}'"""):
        load_site_saes(tmp_path / "one", SITES)
    one = str(tmp_path / "one")
    with pytest.raises(InputError, match=r"no SAE for 4 of 8 sites \(its patterns are 'mid\*', of which none matches"):
        load_site_saes({"mid*": one}, SITES)
    (tmp_path / "sites").mkdir()
    sites = str(tmp_path / "sites")
    with pytest.raises(InputError, match=r"no SAE for 4 of 8 sites \(looked for .*sites/up_blocks.1.att"):
        load_site_saes({"mid*": one, "up*": sites}, SITES)
    assert unfinished_sites({"mid*": one, "up*": "some/hub"}, SITES) == []


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("~/saes/one", r"~ is not expanded in ~/saes/one; write the whole path, /.*/saes/one"),
        ("s3://bucket/sae", r"s3://bucket/sae is an address; accepted: a folder, a file or a hub id"),
        ("https://host/sae", r"https://host/sae is an address; accepted: a folder, a file or a hub id"),
    ],
)
def test_what_is_neither_here_nor_in_a_hub_is_told_what_is_accepted(place: str, said: str) -> None:
    for saes in (place, {"*": place}):
        with pytest.raises(InputError, match=said):
            configs(saes, SITES[:1])
