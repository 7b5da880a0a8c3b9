"""Training that diverges is named, ends, and leaves the last good checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from trl import GRPOTrainer

from grpo_dist.errors import TrainingDiverged
from grpo_dist.run.control import FAILED
from grpo_dist.supervisor.failure import failure_of
from grpo_dist.training.trainer.divergence import StopsWhenDiverged, check_sound

SAMPLING = RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")


@pytest.fixture
def trainer(monkeypatch):
    """The fifth step of a trainer that does nothing of its own."""
    made = StopsWhenDiverged.__new__(StopsWhenDiverged)
    made.loss, made.norm, made.error, made.saved = 0.5, 1.0, None, []
    made.state, made.args = SimpleNamespace(global_step=4), SimpleNamespace(learning_rate=1e-3)
    made.accelerator = SimpleNamespace(device="cpu", gather=lambda tensor: tensor, scaler=None)
    made.model = torch.nn.Linear(2, 2)

    def training_step(self):
        if self.error:
            raise self.error
        return torch.tensor(self.loss)

    monkeypatch.setattr(GRPOTrainer, "training_step", training_step)
    monkeypatch.setattr(GRPOTrainer, "_get_grad_norm", lambda self: torch.tensor(self.norm))
    monkeypatch.setattr(GRPOTrainer, "_save_checkpoint", lambda self, *_: self.saved.append(self.state.global_step))
    return made


def step(trainer) -> None:
    trainer.training_step()
    trainer._get_grad_norm()
    trainer._save_checkpoint(None, None)


def test_a_sound_step_is_saved(trainer):
    step(trainer)
    assert trainer.saved == [4]


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ({"loss": float("nan")}, "at step 5: the loss is nan"),
        ({"loss": float("inf")}, "at step 5: the loss is inf"),
        ({"norm": float("nan")}, "at step 5: the gradient's norm is nan"),
        ({"norm": float("inf")}, "at step 5: the gradient's norm is inf"),
        ({"error": SAMPLING}, "at step 5: the model's probabilities are not finite"),
    ],
)
def test_what_is_not_finite_ends_the_run_before_anything_is_saved(trainer, spoilt, says):
    vars(trainer).update(spoilt)
    with pytest.raises(TrainingDiverged) as raised:
        step(trainer)
    assert says in raised.value.message
    assert "--set grpo.learning_rate=0.0001" in raised.value.hint
    assert "--resume is of no use" in raised.value.hint
    assert trainer.saved == []


def test_a_spoilt_adapter_is_not_saved(trainer):
    trainer.model.weight.data[0, 0] = float("nan")
    with pytest.raises(TrainingDiverged, match="at step 4: the adapter holds NaN"):
        step(trainer)
    assert trainer.saved == []


def test_a_loss_scale_that_is_too_high_is_no_divergence(trainer):
    trainer.accelerator.scaler, trainer.norm = object(), float("inf")
    step(trainer)
    assert trainer.saved == [4]


def test_another_error_passes_as_it_is(trainer):
    trainer.error = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else"):
        step(trainer)


def test_a_spoilt_checkpoint_is_not_taken_up(tmp_path):
    place = tmp_path / "checkpoint-6"
    place.mkdir()
    save_file({"a": torch.ones(2)}, place / "adapter_model.safetensors")
    check_sound(place)
    save_file({"a": torch.tensor([1.0, float("inf")])}, place / "adapter_model.safetensors")
    with pytest.raises(TrainingDiverged, match="before step 6") as raised:
        check_sound(place)
    assert "of no use" in raised.value.hint


def test_a_job_that_diverged_is_not_put_back_in_the_queue():
    why = "training diverged at step 5: the loss is nan; nothing of this step was saved"
    failure = failure_of(0, "node1", "train", 1, why, ["Connection closed by peer"])
    assert (failure.cause, failure.outcome) == ("training diverged", FAILED)
    assert "grpo.learning_rate" in failure.hint
