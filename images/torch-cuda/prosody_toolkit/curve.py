"""The learning curve: a table, and a picture of it."""

import csv
import io
import os
import typing as tp

from prosody_toolkit import storage

COLUMNS = ("step", "epoch", "train_loss", "validation_loss", "validation_accuracy")

Rows = tp.Sequence[tp.Mapping[str, float]]


def write(rows: Rows, folder: str) -> None:
    """Write `curve.csv`, one row per epoch: losses in nats per hidden token, accuracy as a share."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with storage.replacing(os.path.join(folder, "curve.csv")) as f:
        f.write(text.getvalue().encode("ascii"))


def plot(rows: Rows, facts: tp.Mapping[str, tp.Any], folder: str) -> None:
    """Write `curve.png` and `curve.svg`: losses and accuracy by epoch.

    Dashed lines show what frequencies alone would guess, the `unigram` among the `facts`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)  # no window, and no state that others share
    losses, shares = figure.subplots(1, 2)
    losses.plot(epochs, [row["train_loss"] for row in rows], label="training")
    losses.plot(epochs, [row["validation_loss"] for row in rows], label="validation")
    losses.axhline(facts["unigram"]["loss"], color="gray", linestyle="--", label="unigram")
    losses.set(xlabel="epoch", ylabel="loss in nats per hidden token")
    shares.plot(epochs, [row["validation_accuracy"] for row in rows], color="C1", label="validation")
    shares.axhline(facts["unigram"]["accuracy"], color="gray", linestyle="--", label="unigram")
    shares.set(xlabel="epoch", ylabel="hidden tokens guessed", ylim=(0, None))
    for axes in (losses, shares):
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    for kind in ("png", "svg"):
        with storage.replacing(os.path.join(folder, f"curve.{kind}")) as f:
            figure.savefig(f, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
