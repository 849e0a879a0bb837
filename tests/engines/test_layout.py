"""The tensors of a live model with room for the longest path."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from optmerge.engines.layout import Layout, Loading, deepened
from optmerge.errors import OptmergeError, UsageError

LLAMA = {
    "model_type": "llama",
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}
FULL, SLIDING = "full_attention", "sliding_attention"
# It says nothing of its layers' masks: they follow from its model_type.
GEMMA_2 = LLAMA | {"model_type": "gemma2", "head_dim": 4, "num_key_value_heads": 1, "num_hidden_layers": 3}


def layout(config: dict[str, object], max_hops: int | None = None) -> Layout:
    return Layout.of(config, deepened(config, max_hops))


def whole(known: Layout) -> dict[str, Tensor]:
    return {name: torch.full(shape, 1.0) for name, shape in known.shapes.items()}


def loaded(known: Layout, tensors: Iterator[tuple[str, Tensor]]) -> tuple[dict[str, Tensor], Exception | None]:
    loading = Loading(known)
    return dict(loading.complete(tensors)), loading.error


def test_a_model_has_as_many_layers_as_the_longest_path() -> None:
    assert len(layout(LLAMA, 5).kinds) == 5


def test_a_model_has_room_for_a_source_however_short_paths_are() -> None:
    assert len(layout(LLAMA, 1).kinds) == 2


def test_a_model_that_runs_no_path_is_left_as_it_is() -> None:
    assert deepened(LLAMA, None) == {}
    assert len(layout(LLAMA).kinds) == len(layout(LLAMA).own_kinds) == 2


def test_models_whose_masks_differ_have_as_many_layers_of_each() -> None:
    known = layout(GEMMA_2, 4)
    assert known.own_kinds == (SLIDING, FULL, SLIDING)
    assert known.kinds == (SLIDING, FULL) * 4


def test_layers_go_in_order_to_those_with_their_mask() -> None:
    known = layout(GEMMA_2, 3)
    assert known.places([FULL, FULL, SLIDING]) == [1, 3, 4]
    assert known.places([SLIDING, FULL, SLIDING]) == [0, 1, 2]


def test_more_layers_than_there_are_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="engine.max_hops must be at least 4"):
        layout(LLAMA, 3).places([None] * 4)


def test_a_model_that_cannot_be_written_folded_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="model_type olmo2"):
        deepened(LLAMA | {"model_type": "olmo2"}, 3)


def test_layers_that_are_not_used_are_zero() -> None:
    known = layout(LLAMA, 4)
    zero = dict(known.zero_layers([0, 2]))
    assert {int(name.split(".")[2]) for name in zero} == {1, 3}
    assert all(not tensor.any() and tuple(tensor.shape) == known.shapes[name] for name, tensor in zero.items())
    assert len(zero) == 2 * sum(name.startswith("model.layers.0.") for name in known.shapes)


def test_a_whole_set_of_tensors_passes_as_it_is() -> None:
    known = layout(LLAMA)
    tensors = whole(known)
    found, error = loaded(known, iter(tensors.items()))
    assert found == tensors and error is None


def test_a_tied_tensor_counts_once_whichever_of_its_names_it_has() -> None:
    known = layout(LLAMA)
    assert known.tied and "lm_head.weight" not in known.shapes
    tensors = whole(known)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    found, error = loaded(known, iter(tensors.items()))
    assert found.keys() == known.shapes.keys() and error is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.norm.weight": None}, "the candidate has no tensor model.norm.weight"),
        ({"model.bias": torch.zeros(1)}, "the model has no tensor model.bias"),
        ({"model.norm.weight": torch.zeros(3)}, r"model.norm.weight is \(3,\), and the model's is \(8,\)"),
    ],
)
def test_a_set_that_is_not_right_is_completed_and_its_error_kept(
    change: dict[str, Tensor | None], message: str
) -> None:
    known = layout(LLAMA)
    changed = {name: tensor for name, tensor in {**whole(known), **change}.items() if tensor is not None}
    found, error = loaded(known, iter(sorted(changed.items())))
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == known.shapes
    with pytest.raises(OptmergeError, match=message):
        raise error or AssertionError("no error")


def test_a_merge_that_fails_halfway_leaves_a_whole_set() -> None:
    def failing() -> Iterator[tuple[str, Tensor]]:
        yield next(iter(whole(layout(LLAMA)).items()))
        raise OptmergeError("merging gives NaN")

    found, error = loaded(layout(LLAMA), failing())
    assert found.keys() == layout(LLAMA).shapes.keys() and str(error) == "merging gives NaN"
