import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

Make = Callable[..., Any]


@pytest.mark.parametrize("head", ["late_sum", "concat"])
def test_a_step_is_plain_joint_training(
    head: str, method_of: Make, problem_of: Make, batch_of: Make
) -> None:
    problem = problem_of({"sound": "audio", "view": "visual", "other": "visual"})
    method = method_of("naive", problem, head=head)
    copied = copy.deepcopy(method.network)
    encoders, top = copied.encoders, copied.head
    everything = [*encoders.parameters(), *top.parameters()]
    sgd = torch.optim.SGD(everything, lr=0.05, momentum=0.9, weight_decay=1e-4)
    for seed in range(3):
        batch = batch_of(problem, seed=seed)
        parts = [top.logits(m, encoders[m](batch.inputs[m])) for m in method.modalities]
        loss = cross_entropy(sum(parts), batch.labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        step = method.train_step(batch, 0)
        torch.testing.assert_close(step.loss, loss.detach())
        torch.testing.assert_close(step.logits["fused"], sum(parts).detach())
    ours = [*method.network.encoders.parameters(), *method.network.head.parameters()]
    for mine, its in zip(ours, everything, strict=True):
        torch.testing.assert_close(mine, its)


def test_a_misspelt_modality_is_not_left_out_of_a_prediction_in_silence(
    method_of: Make, problem_of: Make, batch_of: Make
) -> None:
    problem = problem_of({"sound": "audio", "view": "visual"})
    method = method_of("naive", problem)
    with pytest.raises(ValueError, match="the method has no modality 'veiw'"):
        method.predict(batch_of(problem), ["sound", "veiw"])
