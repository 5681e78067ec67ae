"""Explain a prediction: which bonds does the barrier of an atom rest on?"""

from __future__ import annotations

from mgsym.explanation.agreement import mean_agreement, method_agreement, rank_agreement
from mgsym.explanation.computation_graph import node_of_id
from mgsym.explanation.explain import (
    METHODS,
    explain,
    explain_nodes,
    method_settings,
    parse_settings,
)
from mgsym.explanation.explanation import Explanation
from mgsym.explanation.faithfulness import (
    Faithfulness,
    NodeFaithfulness,
    evaluate_explanation,
    evaluate_explanations,
)
from mgsym.explanation.methods.parameterised_mask import ParameterisedExplainer

__all__ = [
    "METHODS",
    "Explanation",
    "Faithfulness",
    "NodeFaithfulness",
    "ParameterisedExplainer",
    "evaluate_explanation",
    "evaluate_explanations",
    "explain",
    "explain_nodes",
    "mean_agreement",
    "method_agreement",
    "method_settings",
    "node_of_id",
    "parse_settings",
    "rank_agreement",
]
