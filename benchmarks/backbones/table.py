"""The support table of docs/backbones.md, from the registry and the matrix.

python -m benchmarks.backbones.table
"""

from __future__ import annotations

from collections.abc import Iterator

from transformers import CONFIG_MAPPING

from benchmarks.backbones.zoo import MATRIX
from benchmarks.backbones.zoo.text_only import OPTIONS
from kamera_agent.runtime.families import FAMILIES


def support_table() -> str:
    """Markdown: every supported model type, its backbones, and the kinds of attention that are tested."""
    head = ["| `config.model_type` | backbones | tested with |", "|---|---|---|"]
    return "\n".join([*head, *_rows()])


def _rows() -> Iterator[str]:
    for family in FAMILIES:
        backbones = (family.__doc__ or "").splitlines()[0].rstrip(".")
        for model_type in family.model_types:
            tested = [row for row in MATRIX if row.name.partition("-")[0] == model_type]
            ways = [f"{row.attention}{_over(row.name.partition('-')[2])}" for row in tested]
            ways += ["documents"] if model_type in OPTIONS else []
            yield f"| `{model_type}` | {backbones} | {', '.join(ways) or 'same family only'} |"
    listed = {model_type for family in FAMILIES for model_type in family.model_types}
    types = ", ".join(f"`{model_type}`" for model_type in OPTIONS if model_type not in listed)
    yield f"| [all others](#text-models) | causal text models of the usual parts | documents over {types} |"


def _over(variant: str) -> str:
    """What comes after the hyphen of a row's name: a text model or an option."""
    if not variant:
        return ""
    return f" {'over' if variant in CONFIG_MAPPING else 'with'} `{variant}`"


if __name__ == "__main__":
    print(support_table())
