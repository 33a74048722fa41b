"""Warnings of kernels that cannot run, one for a reason."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

_told: set[str] = set()


def tell_once(key: str, reason: str) -> None:
    """Warn of a kernel that cannot run; of others for the same ``reason``, such as all of a dtype, no more."""
    logger.log(logging.DEBUG if reason in _told else logging.WARNING, "not measured: %s: %s", key, reason)
    _told.add(reason)
