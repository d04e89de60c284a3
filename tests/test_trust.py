"""A stranger's run executes nothing."""

import shutil

import pytest
from omegaconf import OmegaConf

from lightning_dice.data.layouts.nnunet import nnunet_cases
from lightning_dice.errors import InputError
from lightning_dice.evaluate import evaluate
from lightning_dice.runs import Run, read_config
from lightning_dice.trust import TRUSTED, check_trust
from tests.test_train import composed, config_of, finished  # noqa: F401 (a fixture)

called = []


def spy(root, **_):
    """What a run's configuration may name as its layout."""
    called.append(root)
    return nnunet_cases(root)


@pytest.fixture
def strange(finished, tmp_path):  # noqa: F811
    """A copy of a finished run, and how to change its configuration."""
    run = Run(tmp_path / "run")
    shutil.copytree(finished.folder, run.folder)

    def change(**settings):
        config = OmegaConf.create(read_config(run))
        for key, value in settings.items():
            OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
        OmegaConf.save(config, run.config)
        return run

    called.clear()
    return change


def evaluated(run, tmp_path, *overrides):
    return evaluate(composed("evaluate", tmp_path, f"run='{run.folder}'", "trainer.precision=32-true", *overrides))


def test_code_that_a_configuration_names_is_run_only_when_the_user_trusts_it(strange, tmp_path):
    run = strange(data__layout={"_target_": "tests.test_trust.spy", "_partial_": True})
    with pytest.raises(InputError, match=r"wants to run tests\.test_trust\.spy.*trust=true"):
        evaluated(run, tmp_path)
    assert not called
    assert not (run.folder / "evaluate").exists()
    evaluated(run, tmp_path, "trust=true")
    assert len(called) == 1


def test_a_module_of_ours_is_no_way_to_others_code(strange, tmp_path):
    run = strange(data__layout={"_target_": "lightning_dice.sessions.subprocess.run", "_partial_": True})
    with pytest.raises(InputError, match=r"wants to run lightning_dice\.sessions\.subprocess\.run"):
        evaluated(run, tmp_path)


def test_a_transform_of_the_training_is_not_wanted_for_an_evaluation(strange, tmp_path):
    run = strange(
        data__transform={"_target_": "monai.utils.run_cmd", "cmd_list": ["touch", str(tmp_path / "executed")]}
    )
    evaluated(run, tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data__name": "../../elsewhere"}, r"config\.yaml: data\.name=\.\./\.\./elsewhere: expected a folder's name"),
        ({"data__more": 1}, r"config\.yaml: data\.more: no such setting"),
        ({"data__preparation__more": {"_target_": "os.system"}}, "no such setting"),
        ({"data__layout__deep": [{"_target_": "os.system"}]}, r"wants to run os\.system"),
    ],
)
def test_a_configuration_is_checked_like_a_users(strange, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        evaluated(strange(**settings), tmp_path)


def test_what_is_trusted_is_there_and_this_packages():
    for name in TRUSTED:
        module, _, attribute = name.rpartition(".")
        found = getattr(__import__(module, fromlist=[attribute]), attribute)
        assert found.__module__ == module
    check_trust({"a": [{"_target_": TRUSTED[0]}]}, Run(None), trust=False)
