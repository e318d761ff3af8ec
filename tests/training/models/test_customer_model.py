"""What the models share: files that this code did not write, or that were changed since, are refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

from training.models.churn_model import ChurnModel
from training.models.customer_model import Stored, read_model
from training.models.offer_model import OfferModel
from training.models.value_model import ValueModel
from workspace.digests import ChangedModel
from workspace.storage import CheckFailed


@pytest.mark.parametrize("model", [ChurnModel, ValueModel, OfferModel])
@pytest.mark.parametrize("written", ["{}", '{"packed": ["T"]', '{"packed": 1, "names": 1, "history_model": null}'])
def test_files_of_another_code_are_refused(tmp_path: Path, model: type[ChurnModel], written: str) -> None:
    """An entry is missing, the text breaks off, or an entry is of another kind."""
    (tmp_path / "model.json").write_text(written)
    with pytest.raises(
        CheckFailed, match=rf"the {model.__name__} in .* cannot be read \(\w+: .*another version of this"
    ):
        read_model(model, tmp_path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "booster.txt": lambda folder: (folder / "booster.txt").unlink(),
    "another.txt": lambda folder: (folder / "another.txt").write_text("tree\n"),
    "digests.json": lambda folder: (folder / "digests.json").write_text('{"model.json"'),
    "model.json": lambda folder: (folder / "model.json").write_text('{"a": 2}'),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_files_are_refused_before_they_are_read(tmp_path: Path, name: str) -> None:
    """By the digests beside them, whether a file was lost, added, cut off or is another one."""
    _stored().write(tmp_path)
    assert Stored.read(tmp_path).parameters == {"a": 1}
    CHANGES[name](tmp_path)
    with pytest.raises(ChangedModel, match=f"the model in {tmp_path} is not what was written: {name} changed since;"):
        Stored.read(tmp_path)


def test_a_model_of_before_there_were_digests_is_read(tmp_path: Path) -> None:
    """Nothing is beside it that could tell; written again it has them."""
    _stored().write(tmp_path)
    (tmp_path / "digests.json").unlink()
    stored = Stored.read(tmp_path)
    assert list(stored.boosters) == ["booster"]
    stored.write(tmp_path)
    stored.write(tmp_path)
    assert Stored.read(tmp_path).parameters == {"a": 1}


def _stored() -> Stored:
    rows = lgb.Dataset(np.arange(100.0).reshape(-1, 1), np.arange(100) % 2)
    return Stored({"a": 1}, {"booster": lgb.train({"verbose": -1}, rows, 1)})
