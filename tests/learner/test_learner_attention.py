"""Attention functions over a tree agree with the dense mask in masks, outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from learner_cases import llama, make_row
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from learner.errors import PackingError
from learner.passes import masks
from learner.passes.attention import FLEX, TREE, implementation, tree_attention
from learner.passes.layout import Layout
from learner.passes.masks import Tree, branch_mask, mask_mod, packing, tree_mask
from learner.passes.packed_encoder import PackedEncoder


def _layout(seed: int = 0) -> Layout:
    """Return a layout of rows of different lengths, so that trunks and branches both have pads."""
    rows = [make_row(seed, turns=3), make_row(seed + 1, turns=7, all_turns=True), make_row(seed + 2, turns=5)]
    return PackedEncoder(0).encode(rows, ("state", "action", "fresh"))


def _tree(layout: Layout) -> Tree:
    assert isinstance(layout.structure, Tree)
    return layout.structure


def _model(attends: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(llama(attn_implementation=attends, head_dim=16))
    assert model.config._attn_implementation == attends
    return model


def _logits(model: PreTrainedModel, layout: Layout) -> Tensor:
    """Return the logits of all tokens except pads: [tokens, vocabulary]."""
    with packing(_tree(layout)):
        logits = model(
            input_ids=layout.input_ids,
            attention_mask=torch.ones_like(layout.input_ids),
            position_ids=layout.position_ids,
            use_cache=False,
        ).logits
    return logits[_tree(layout).branch >= 0]


@pytest.mark.parametrize("seed", range(5))
def test_the_mask_function_on_a_grid_of_indices_is_the_dense_mask(seed: int) -> None:
    tree = _tree(_layout(10 * seed))
    visible = mask_mod(tree)
    rows, length = tree.branch.shape
    row, query, key = torch.meshgrid(torch.arange(rows), torch.arange(length), torch.arange(length), indexing="ij")
    assert visible(row, torch.zeros_like(row), query, key).equal(tree_mask(tree)[:, 0])


@pytest.mark.parametrize("block", [3, 8, 1000])
def test_the_dense_mask_is_a_causal_trunk_and_the_blocks_of_the_branches(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_BLOCK", block)
    tree = _tree(_layout())
    dense = tree_mask(tree)
    found = torch.zeros_like(dense[:, :, tree.trunk :])
    mask = branch_mask(tree, torch.float32)
    assert mask.shape[2] == found.shape[2]
    for queries, reach, own, part in mask.blocks:
        rows = slice(queries.start - tree.trunk, queries.stop - tree.trunk)
        found[:, :, rows, reach] = part[..., : reach.stop] == 0
        found[:, :, rows, own] = part[..., reach.stop :] == 0
    assert found.equal(dense[:, :, tree.trunk :])
    trunk = dense[:, 0, : tree.trunk, : tree.trunk]
    causal = torch.ones(tree.trunk, tree.trunk, dtype=torch.bool).tril()
    assert trunk[tree.branch[:, : tree.trunk] == 0].equal(causal.expand_as(trunk)[tree.branch[:, : tree.trunk] == 0])


def test_tree_attention_gives_outputs_and_gradients_of_the_dense_mask() -> None:
    layout = _layout()
    dense, tree = _model("sdpa"), _model(TREE)
    outputs = [_logits(model, layout) for model in (dense, tree)]
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=0)
    for output in outputs:
        output.square().mean().backward()
    for (name, a), b in zip(dense.named_parameters(), tree.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, atol=1e-6, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_tree_attention_accepts_rows_without_branches_and_padded_sequences() -> None:
    dense, tree = _model("sdpa").eval(), _model(TREE).eval()
    row = make_row(4, turns=7, all_turns=True)
    layout = PackedEncoder(0).encode([row, make_row(5, turns=2)], ("state", "action"))
    assert branch_mask(_tree(layout), torch.float32).shape[2] == 0
    ids = layout.input_ids[:1, :6]
    padded = torch.tensor([[0, 0, 1, 1, 1, 1]])  # pads on the left, which a causal mask alone does not hide
    with torch.no_grad():
        torch.testing.assert_close(_logits(tree, layout), _logits(dense, layout), atol=1e-5, rtol=0)
        expected, got = (model(ids, attention_mask=padded).logits[:, 2:] for model in (dense, tree))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_flex_attention_gives_the_same_logits() -> None:
    """Runs uncompiled, because a CPU may have no compiler."""
    layout = _layout()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        expected, got = (_logits(_model(attends).eval(), layout) for attends in ("sdpa", FLEX))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the compiled kernel of FlexAttention needs a CUDA GPU")
def test_compiled_flex_attention_gives_outputs_and_gradients_of_the_dense_mask() -> None:
    device = torch.device("cuda")
    layout = _layout().to(device)
    dense, flex = _model("sdpa").to(device), _model(FLEX).to(device)
    outputs = [_logits(model, layout) for model in (dense, flex)]
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-4, rtol=0)
    for output in outputs:
        output.square().mean().backward()
    for a, b in zip(dense.parameters(), flex.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("accelerator", "attends"), [("cpu", TREE), ("cuda", FLEX)])
def test_the_accelerator_selects_the_attention_function(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, attends: str
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", accelerator)
    assert implementation() == attends


def test_attention_that_cannot_follow_a_tree_is_refused() -> None:
    tree = _tree(_layout())
    with pytest.raises(PackingError, match="more than positions"):
        masks._local(tree, mask_mod(tree), None, use_vmap=True)
    states = torch.zeros(1, 1, 1, 16)
    with pytest.raises(PackingError, match="bias for each pair of columns"):
        tree_attention(
            torch.nn.Identity(), states, states, states, branch_mask(tree, torch.float32), position_bias=states
        )
