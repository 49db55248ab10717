"""Parity is measured as the worker computes: with one thread, whatever the machine has."""

import sys

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Set what the runtime sets through the environment, in the one framework that may have read it before."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
