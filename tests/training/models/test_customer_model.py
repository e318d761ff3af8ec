"""What the models share: files that this code did not write are refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.storage import CheckFailed
from training.models.churn_model import ChurnModel
from training.models.customer_model import read_model
from training.models.offer_model import OfferModel
from training.models.value_model import ValueModel


@pytest.mark.parametrize("model", [ChurnModel, ValueModel, OfferModel])
@pytest.mark.parametrize("written", ["{}", '{"packed": ["T"]', '{"packed": 1, "names": 1, "history_model": null}'])
def test_files_of_another_code_are_refused(tmp_path: Path, model: type[ChurnModel], written: str) -> None:
    """An entry is missing, the text breaks off, or an entry is of another kind."""
    (tmp_path / "model.json").write_text(written)
    with pytest.raises(
        CheckFailed, match=rf"the {model.__name__} in .* cannot be read \(\w+: .*another version of this"
    ):
        read_model(model, tmp_path)
