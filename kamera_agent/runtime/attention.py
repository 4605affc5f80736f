"""Attention part by part: parts without a mask need no copies of K and V, and are joined by their log-sum-exp."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch

from kamera_agent.runtime.sight import Group, Part

# Queries whose scores plain attention has in memory at once.
BLOCK = 256
# The longest heads of the flash attention of CUDA, and the multiple that they must be of.
LONGEST_HEAD, HEAD_MULTIPLE = 256, 8
FLASH_CAPABILITY = 8, 0


class Attended(NamedTuple):
    """What queries got from some of the keys: output [H, Q, D], and the log-sum-exp of their scores [H, Q] in float32.

    With it, the outputs from all of the keys follow from those of the parts.
    """

    output: torch.Tensor
    log_sum: torch.Tensor


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: Sequence[Group], scale: float | None
) -> torch.Tensor:
    """Attention outputs [H, Q, Dv] of queries [H, Q, D] over keys [Hk, S, D] and values [Hk, S, Dv].

    H is a multiple of Hk: neighbouring heads of queries share a head of keys. scale: of the scores; None for D ** -0.5.
    The groups have all rows, in order.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if len(groups) == 1:
        return _attend_group(query, key, value, groups[0].parts, scale)
    outputs = [_attend_group(query[:, rows], key, value, parts, scale) for rows, parts in groups]
    return torch.cat(outputs, dim=1)


def _attend_group(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, parts: Sequence[Part], scale: float
) -> torch.Tensor:
    first, *others = [_attend_part(query, key, value, part, scale) for part in parts]
    for other in others:
        first = _join(first, other)
    return first.output


def _join(one: Attended, other: Attended) -> Attended:
    """What queries got from both parts of the keys (arXiv 2205.14135, section 3.1)."""
    weight = torch.sigmoid(other.log_sum - one.log_sum)[..., None]
    output = torch.lerp(one.output.float(), other.output.float(), weight)
    return Attended(output.to(one.output.dtype), torch.logaddexp(one.log_sum, other.log_sum))


def _attend_part(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: Part, scale: float) -> Attended:
    key, value = key[:, part.columns], value[:, part.columns]
    same_size = key.shape[-1] == value.shape[-1]
    if query.device.type == "cpu" and same_size:
        return _attend_cpu(query, key, value, part, scale)
    if query.is_cuda and same_size and part.mask is None and _has_flash(query.device, query.dtype, query.shape[-1]):
        return _attend_cuda(query, key, value, part, scale)
    return _attend_plain(query, key, value, part, scale)


def _attend_cpu(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: Part, scale: float) -> Attended:
    num_heads, num_queries, dim = query.shape
    group = num_heads // len(key)
    if part.is_causal or (part.mask is not None and len(part.mask) > 1):
        # The heads of keys are the batch. Each has its group of heads of queries, for which it is expanded, not copied.
        packed = query.unflatten(0, (-1, group))
        keys, values = (states[:, None].expand(-1, group, -1, -1) for states in (key, value))
    else:
        # All queries of a group see the same, so that one head can have them in a row.
        packed, keys, values = query.reshape(1, -1, group * num_queries, dim), key[None], value[None]
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    mask = None if part.mask is None else part.mask[None, None]
    output, log_sum = flash(packed, keys, values, is_causal=part.is_causal, attn_mask=mask, scale=scale)
    return Attended(output.reshape(query.shape), log_sum.reshape(query.shape[:2]))


def _attend_cuda(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: Part, scale: float) -> Attended:
    # The kernel finds the head of keys of each head of queries by itself.
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    output, log_sum, *_ = flash(query[None], key[None], value[None], is_causal=part.is_causal, scale=scale)
    return Attended(output[0], log_sum[0])


@cache
def _has_flash(device: torch.device, dtype: torch.dtype, dim: int) -> bool:
    """Whether CUDA's flash attention takes heads of this size."""
    fits = dim <= LONGEST_HEAD and dim % HEAD_MULTIPLE == 0 and dtype in (torch.float16, torch.bfloat16)
    return fits and torch.cuda.get_device_capability(device) >= FLASH_CAPABILITY


def _attend_plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, part: Part, scale: float) -> Attended:
    """The same by the formula, in float32, BLOCK queries at a time."""
    keys, values = key.float().mT, value.float()
    outputs, log_sums = [], []
    for start in range(0, query.shape[1], BLOCK):
        rows = slice(start, start + BLOCK)
        packed = query[:, rows].float().unflatten(0, (len(key), -1))
        scores = packed.flatten(1, 2) @ keys * scale
        scores = scores.unflatten(1, packed.shape[1:3])
        if part.mask is not None:
            scores = scores + part.mask[rows if len(part.mask) > 1 else slice(None)].float()
        if part.is_causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(start + 1)
            scores = scores.masked_fill(later, float("-inf"))
        log_sum = scores.logsumexp(-1)
        weights = (scores - log_sum[..., None]).exp()
        output = (weights.flatten(1, 2) @ values).unflatten(1, packed.shape[1:3])
        outputs.append(output.flatten(0, 1).to(query.dtype))
        log_sums.append(log_sum.flatten(0, 1))
    return Attended(torch.cat(outputs, dim=1), torch.cat(log_sums, dim=1))
