"""The answer of `kdc students --estimate`, as a table and as CSV; both say that it is an estimate."""

import csv
import io

from compressor.schema.unmeasured import Basis, Estimates
from compressor.terminal.tables import table

__all__ = ["basis_text", "to_csv", "to_text"]


def to_text(answer: Estimates) -> str:
    """For a terminal and a log: a line a candidate and variant, the fastest first, and what the estimates rest on."""
    header = ("student", "px", "variant", "rank", "ESTIMATED p50 ms", "params M", "MMACs", "budget")
    rows = sorted(answer.rows, key=lambda row: (row.estimated_p50_ms, row.student, row.variant))
    cells = [
        (
            row.student,
            str(row.input_size),
            row.variant,
            str(row.rank),
            f"~{row.estimated_p50_ms:.3g}",
            f"{row.parameters / 1e6:.2f}",
            f"{row.macs / 1e6:.0f}",
            row.budget,
        )
        for row in rows
    ]
    lines = [
        table([header, *cells]),
        "",
        f"ESTIMATES for {answer.profile}, batch {answer.batch}, {answer.threads} threads, {answer.classes} classes: "
        "nothing here was measured, and no line of the budget is judged.",
        *(basis_text(basis) for basis in answer.bases),
        *(f"not estimated: {name}: {why}." for name, why in answer.not_estimated.items()),
        "rank: by the estimate, among all of the same variant. Measure the first of them on the device: "
        f"kdc students --profile {answer.profile} --device … --student …",
    ]
    return "\n".join(lines) + "\n"


def basis_text(basis: Basis) -> str:
    """In a sentence or two, what the estimates of a variant rest on, and how far they are off."""
    accuracy = basis.accuracy
    error = (
        f"median error {accuracy.median_error:.1%}, worst {accuracy.worst_error:.0%}, Spearman {accuracy.spearman:.3f} "
        f"(n = {accuracy.n}; {accuracy.of})"
    )
    days = " to ".join(basis.days)
    if basis.calibrated:
        return (
            f"{basis.variant}: calibrated on {basis.candidates} candidates of {basis.families} families measured on "
            f"{basis.machine}, {days}. {error}."
        )
    return (
        f"{basis.variant}: not calibrated, since too few figures of this device are kept: from the profile's facts, "
        f"and the shares of them that are usual. Elsewhere, on {basis.machine}, {days}: {error}. On this device the "
        "error is not known."
    )


def to_csv(answer: Estimates) -> str:
    """A line a candidate and variant; `what` says that it is an estimate, and of what error."""
    columns = (
        "what", "student", "family", "input_size", "classes", "runtime", "precision", "rank", "estimated_p50_ms",
        "budget", "parameters", "macs", "calibrated", "machine", "median_error", "worst_error", "spearman", "n",
    )  # fmt: skip
    bases = {basis.variant: basis for basis in answer.bases}
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in answer.rows:
        basis = bases[row.variant]
        values = {"what": "estimate", "classes": answer.classes} | row.model_dump()
        values |= basis.model_dump(include={"calibrated", "machine"}) | basis.accuracy.model_dump(exclude={"of"})
        writer.writerow(values)
    return text.getvalue()
