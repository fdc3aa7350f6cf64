"""Scoring: named protocols, a scorer that merges exactly, and its report."""

from __future__ import annotations

from pinglow.metrics.boxes import BoxReport, BoxScorer
from pinglow.metrics.protocols import PROTOCOLS, THRESHOLDS, Protocol, Scorer
from pinglow.metrics.report import ImageCounts, Report
from pinglow.metrics.scores import SCORES

__all__ = [
    "PROTOCOLS",
    "SCORES",
    "THRESHOLDS",
    "BoxReport",
    "BoxScorer",
    "ImageCounts",
    "Protocol",
    "Report",
    "Scorer",
]
