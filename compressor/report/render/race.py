"""How the student was chosen: who raced, who won, and what the next larger and smaller ones cost; and how its losses
were weighed."""

from compressor.report.render.markdown import code, table, text
from compressor.report.render.text import NOT_MEASURED, estimate, number
from compressor.schema.race import Contender, LossRace, Neighbour, Race, Trial
from compressor.schema.recipe import KeepBy
from compressor.schema.report import Report

__all__ = ["UNITS", "chosen_by_trials", "losses_table", "race_table", "rank_of", "rank_score"]

UNITS: dict[KeepBy, str] = {"accuracy": "%", "balanced": "balanced %", "auc": "AUC", "bits_per_byte": "bits a byte"}
"""What a figure that trials are ranked by is headed with; accuracy is the usual one, and goes without saying."""


def chosen_by_trials(report: Report) -> dict[str, str]:
    """A table for what was chosen by trials, by its title."""
    tables = {}
    if report.race is not None:
        title = "The race of students (on validation; measured with drawn weights, before training)"
        tables[title] = race_table(report.race)
    if report.losses is not None:
        tables["How the losses are weighed (on validation, before the training)"] = losses_table(report.losses)
    return tables


def race_table(race: Race) -> str:
    """A row a contender, the winner first, and a column a round; below it why this one, and its neighbours."""
    titles = ["student", "ran as", "p50 ms", "size (MB)", *(_round(trials) for trials in race.rounds)]
    scores = [{trial.student: trial for trial in trials} for trials in race.rounds]
    ordered = sorted(race.contenders, key=lambda contender: rank_of(contender, race))
    rows = [
        [
            code(contender.student),
            text(contender.variant or NOT_MEASURED),
            estimate(contender.p50_ms),
            NOT_MEASURED if contender.size_mb is None else number(contender.size_mb),
            *(rank_score(trials.get(contender.student)) for trials in scores),
        ]
        for contender in ordered
    ]
    winner = next(contender for contender in race.contenders if contender.student == race.winner)
    lines = [
        f"{len(race.contenders)} students: {text(race.why)}.",
        f"Taken: {text(race.reason)}.",
        *(f"The next larger one: {_neighbour(other)}." for other in (winner.larger,) if other is not None),
        *(f"The next smaller one: {_neighbour(other)}." for other in (winner.smaller,) if other is not None),
        *(f"{code(student)} could not learn: {text(why)}." for student, why in race.failed.items()),
    ]
    if race.rounds:
        lines.append(f"All trials together: {race.planned} epochs.")
    return table(titles, rows, len(titles) - 2) + "\n\n" + "  \n".join(lines)


def losses_table(losses: LossRace) -> str:
    """A row for each way to weigh them, the best first, and below it why it is the one that was taken."""
    names = list(next(iter(losses.arms.values())))
    rounds = [trials for trials in (losses.trials, losses.in_full) if trials]
    scores = [{trial.arm: trial for trial in trials} for trials in rounds]
    further = [*losses.in_full, *losses.trials]
    rows = [
        [
            text(arm),
            *(f"{losses.arms[arm].get(name, 0.0):g}" for name in names),
            *(rank_score(trials.get(arm)) for trials in scores),
        ]
        for arm in dict.fromkeys(trial.arm for trial in further)
        if arm is not None
    ]
    lines = [
        f"Taken: {text(losses.reason)}.",
        *(f"{text(arm)} could not learn: {text(why)}." for arm, why in losses.failed.items()),
    ]
    titles = ["losses", *(f"weight of {code(name)}" for name in names), *(_round(trials) for trials in rounds)]
    return table(titles, rows, len(titles) - 1) + "\n\n" + "  \n".join(lines)


def rank_of(contender: Contender, race: Race) -> tuple[int, int]:
    """Who came further stands before who did not."""
    for back, trials in enumerate(reversed(race.rounds)):
        for rank, trial in enumerate(trials):
            if trial.student == contender.student:
                return back, rank
    return len(race.rounds), 0


def _round(trials: tuple[Trial, ...]) -> str:
    epochs, n = trials[0].epochs, trials[0].rank_score.n
    return f"validation {UNITS[trials[0].ranked_by]} after {epochs} epoch{'' if epochs == 1 else 's'} (n = {n})"


def rank_score(trial: Trial | None) -> str:
    """The figure that it is ranked by; an AUC is no share of samples."""
    return "–" if trial is None else estimate(trial.rank_score, percent=trial.ranked_by != "auc")


def _neighbour(other: Neighbour) -> str:
    over = f", which breaks {text('; '.join(other.over))}" if other.over else ""
    return f"{code(other.student)}, p50 {estimate(other.p50_ms)} ms, {number(other.size_mb)} MB{over}"
