"""The one table of losses. Adding a loss is a plain function of tensors and a row here: docs/own-loss.md.

A loss names what it needs by its positional arguments (`student_logits`, `teacher_logits`, `labels`, …), and what a
recipe may set by its keyword arguments. What else holds for it are fields of its row: neither the code nor the tests
keep names of losses anywhere else.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor

from compressor.errors import KdcError, did_you_mean
from compressor.losses.companions import early_exits, mutual, peer_ensemble
from compressor.losses.contrastive import crd
from compressor.losses.divergences import jsd, reverse_kl
from compressor.losses.features import attention_maps, attention_transfer, hidden_states, hint, pkd, pooled, review_kd
from compressor.losses.logits import cross_entropy, dist, dkd, kd, logit_mse, lskd, soft_bce, soft_cross_entropy
from compressor.losses.relations import correlation_congruence, fsp, rkd_angle, rkd_distance, similarity_preserving
from compressor.losses.tokens import MeanOver, attention_scores, masked_lm, relations, token_cosine, token_kd
from compressor.losses.top_k import top_k_kd
from compressor.losses.vocabularies import aligned_kd, uld

__all__ = ["LOSSES", "Auto", "Knowledge", "Loss", "MeanOver", "Taps", "bind", "described", "hides_tokens"]

Knowledge = Literal["labels", "response", "feature", "relation", "self", "peers"]
Taps = Literal["maps", "pooled", "attention", "tokens", "scores", "projections", "vocabulary"]
Auto = Literal["each", "embedding_and_each", "last"]
Range = tuple[float, float]


@dataclass(frozen=True)
class Loss:
    """A row of the table.

    `ranges`: lowest and highest value of each parameter. `formula`: one line of plain text. `knowledge`: what is
    learned from. `taps`: the features it wants, maps [B, C, H, W] a layer, pooled [B, D], attention [B, heads, N, N];
    of sequences alone tokens [B, N, D], scores [B, heads, N, N] (attention before the softmax), projections
    [B, 3, N, D] (queries, keys, values), or logits over the vocabulary [B, N, V]. `tokens`: it takes tokens in place
    of maps, too. Where it takes a `mask`, they come whole; else as rows [n, D], those that count. `connector`: the name
    of what makes the student's features comparable with the teacher's. `mean_over`: what it is a mean over where
    samples are sequences: the parts of a step are weighed by how much of it they hold. `auto`: which layers of a
    sequence it looks at where the recipe names none. `layers`: the fewest pairs of features that it takes.

    Traits, which the tests hold against the function:
    `mixed_labels`: its labels may be probabilities; False where they must be classes, so that nothing mixed can be
    learned from. `zero_at_agreement`: it is 0, with no gradient, where the student agrees with its teacher.
    `zero_probabilities`: the teacher's logits may be -inf, so it learns from bare labels and from tables that leave
    classes out. `raw_logits`: it takes each logit by itself, so neither log-probabilities nor a top-k will do.
    `temperature_scaled`: its gradients keep their size at any temperature, by the factor T². `exact_gradient`: its
    gradient is the derivative of its value; False where a part of the value is held constant. `one_process`: it
    remembers samples, and processes would not share that memory.
    """

    function: Callable[..., Tensor]
    ranges: Mapping[str, Range]
    paper: str
    formula: str
    knowledge: Knowledge
    taps: Taps | None = None
    connector: str | None = None
    tokens: bool = False
    mean_over: MeanOver = "samples"
    auto: Auto = "each"
    layers: int = 1
    mixed_labels: bool = True
    zero_at_agreement: bool = True
    zero_probabilities: bool = False
    raw_logits: bool = False
    temperature_scaled: bool = True
    exact_gradient: bool = True
    one_process: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """The tensors that the loss takes, in order."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)

    @property
    def defaults(self) -> dict[str, float]:
        """The default of each parameter that a recipe may set."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def whole(self) -> set[str]:
        """The parameters that are whole numbers."""
        return {p.name for p in inspect.signature(self.function).parameters.values() if p.annotation is int}


TEMPERATURE: Range = (1e-3, 1e3)
FACTOR: Range = (0.0, 100.0)

LOSSES: dict[str, Loss] = {
    "kd": Loss(
        kd, {"temperature": TEMPERATURE}, "Hinton, Vinyals & Dean 2015, arXiv 1503.02531",
        "T^2 KL(softmax(z_t/T) || softmax(z_s/T))", "response", zero_probabilities=True,
    ),
    "cross_entropy": Loss(
        cross_entropy, {"label_smoothing": (0.0, 0.999)}, "labels; smoothing: arXiv 1512.00567",
        "-sum_c y_c log softmax(z_s)_c", "labels", zero_at_agreement=False,
    ),
    "soft_cross_entropy": Loss(
        soft_cross_entropy, {"temperature": TEMPERATURE}, "Jiao et al. 2020 (TinyBERT), arXiv 1909.10351",
        "-T^2 sum_c softmax(z_t/T)_c log softmax(z_s/T)_c", "response",
        zero_probabilities=True, zero_at_agreement=False,
    ),
    "logit_mse": Loss(
        logit_mse, {}, "Bucilua, Caruana & Niculescu-Mizil 2006; as kd's limit: arXiv 1503.02531",
        "1/2 |z_s - z_t|^2 / C, logits centred", "response",
    ),
    "soft_bce": Loss(
        soft_bce, {"temperature": TEMPERATURE}, "Yang et al. 2023, arXiv 2308.06453",
        "T^2 sum_c KL(sigmoid(z_t/T) || sigmoid(z_s/T))", "response", raw_logits=True,
    ),
    "dkd": Loss(
        dkd, {"temperature": TEMPERATURE, "alpha": FACTOR, "beta": FACTOR}, "Zhao et al. 2022, arXiv 2203.08679",
        "T^2 (alpha KL(label or not) + beta KL(among the others))", "response", mixed_labels=False,
    ),
    "dist": Loss(
        dist, {"temperature": TEMPERATURE, "beta": FACTOR, "gamma": FACTOR}, "Huang et al. 2022, arXiv 2205.10536",
        "T^2 (beta (1 - pearson of rows) + gamma (1 - pearson of columns))", "response",
        zero_probabilities=True, temperature_scaled=False,
    ),
    "lskd": Loss(
        lskd, {"temperature": TEMPERATURE}, "Sun et al. 2024, arXiv 2403.01427",
        "kd of (z - mean) / std", "response",
    ),
    "hint": Loss(
        hint, {}, "Romero et al. 2015 (FitNets), arXiv 1412.6550",
        "mean (f_s - f_t)^2", "feature", "maps", "project", tokens=True, mean_over="tokens",
    ),
    "pkd": Loss(
        pkd, {}, "Cao et al. 2022 (PKD), arXiv 2207.02039",
        "1 - pearson(f_s, f_t) of a channel, over batch and positions", "feature", "maps", "project_coarse",
    ),
    "attention_transfer": Loss(
        attention_transfer, {}, "Zagoruyko & Komodakis 2017, arXiv 1612.03928",
        "mean (Q_s/|Q_s| - Q_t/|Q_t|)^2, Q = sum_c f_c^2", "feature", "maps", "resize",
    ),
    "review_kd": Loss(
        review_kd, {}, "Chen et al. 2021, arXiv 2104.09044",
        "mean (f_s - f_t)^2, also pooled to 4x4, 2x2, 1x1", "feature", "maps", "review",
    ),
    "pooled": Loss(
        pooled, {}, "Chen et al. 2022, arXiv 2210.15274",
        "1 - cos(f_s, f_t)", "feature", "pooled", "project_pooled",
    ),
    "hidden_states": Loss(
        hidden_states, {}, "Jiao et al. 2020 (TinyBERT, eq. 9), arXiv 1909.10351",
        "mean (h_s - h_t)^2", "feature", "maps", "project_shared",
        tokens=True, mean_over="tokens", auto="embedding_and_each",
    ),
    "attention_maps": Loss(
        attention_maps, {}, "Jiao et al. 2020 (TinyBERT, eq. 8), arXiv 1909.10351",
        "mean (a_s - a_t)^2", "feature", "attention", "attention", mean_over="pairs",
    ),
    "rkd_distance": Loss(
        rkd_distance, {}, "Park et al. 2019, arXiv 1904.05068",
        "huber(|f_i - f_j| / mean distance)", "relation", "pooled",
    ),
    "rkd_angle": Loss(
        rkd_angle, {}, "Park et al. 2019, arXiv 1904.05068",
        "huber(cos of the angle at f_j of f_i, f_j, f_k)", "relation", "pooled",
    ),
    "similarity_preserving": Loss(
        similarity_preserving, {}, "Tung & Mori 2019, arXiv 1907.09682",
        "|G_s - G_t|^2 / B^2, G = f f' with rows of length 1", "relation", "maps",
    ),
    "correlation_congruence": Loss(
        correlation_congruence, {"gamma": (1e-3, 1e2)}, "Peng et al. 2019, arXiv 1904.01802",
        "|K_s - K_t|^2 / B^2, K_ij = exp(-gamma |u_i - u_j|^2), u = f/|f|", "relation", "pooled",
    ),
    "fsp": Loss(
        fsp, {}, "Yim et al. 2017, CVPR",
        "mean (G_s - G_t)^2, G = f_l f_(l+1)' / (h w), layer to layer", "relation", "maps", "project",
        layers=2,
    ),
    "crd": Loss(
        crd, {"temperature": TEMPERATURE}, "Tian, Krishnan & Isola 2020, arXiv 1910.10699",
        "-log h(s,t) - sum_neg log(1 - h(s,m)), h = e/(e + N Z), e = exp(s.t/T)", "relation", "pooled", "contrast",
        mixed_labels=False, zero_at_agreement=False, temperature_scaled=False, exact_gradient=False, one_process=True,
    ),
    "early_exits": Loss(
        early_exits, {"temperature": TEMPERATURE, "alpha": (0.0, 1.0)}, "Zhang et al. 2019, arXiv 1905.08094",
        "(1 - alpha) CE(exit, y) + alpha T^2 KL(last || exit)", "self", "maps", "exits", zero_at_agreement=False,
    ),
    "mutual": Loss(
        mutual, {"temperature": TEMPERATURE}, "Zhang et al. 2018, arXiv 1706.00384",
        "mean_peers T^2 KL(softmax(z_peer/T) || softmax(z_s/T))", "peers",
    ),
    "peer_ensemble": Loss(
        peer_ensemble, {"temperature": TEMPERATURE}, "Zhang et al. 2018 (DML_e), arXiv 1706.00384",
        "T^2 KL(mean_peers softmax(z_peer/T) || softmax(z_s/T))", "peers",
    ),
    "attention_scores": Loss(
        attention_scores, {}, "Jiao et al. 2020 (TinyBERT, eq. 8), arXiv 1909.10351",
        "mean (s_s - s_t)^2, s = q k' / sqrt(d)", "feature", "scores", "scores", mean_over="pairs",
    ),
    "relations": Loss(
        relations, {"relation_heads": (0, 4096)}, "Wang et al. 2021 (MiniLMv2), arXiv 2012.15828",
        "sum_a=q,k,v KL(r_t || r_s), r = softmax(a a' / sqrt(d))", "relation", "projections",
        mean_over="tokens", auto="last",
    ),
    "token_cosine": Loss(
        token_cosine, {}, "Sanh et al. 2019 (DistilBERT), arXiv 1910.01108",
        "1 - cos(h_s, h_t)", "feature", "tokens", "same_width", mean_over="tokens", auto="last",
    ),
    "token_kd": Loss(
        token_kd, {"temperature": TEMPERATURE}, "Sanh et al. 2019 (DistilBERT), arXiv 1910.01108",
        "T^2 KL(softmax(z_t/T) || softmax(z_s/T)) over the vocabulary", "response", "vocabulary", "vocabulary",
        mean_over="tokens",
    ),
    "masked_lm": Loss(
        masked_lm, {}, "Devlin et al. 2019, arXiv 1810.04805",
        "-log softmax(z_s)_y over the vocabulary, y a hidden token", "labels", "vocabulary", "vocabulary",
        mean_over="chosen", zero_at_agreement=False,
    ),
    "reverse_kl": Loss(
        reverse_kl, {"temperature": TEMPERATURE}, "Gu et al. 2024 (MiniLLM), arXiv 2306.08543",
        "T^2 KL(softmax(z_s/T) || softmax(z_t/T))", "response",
    ),
    "jsd": Loss(
        jsd, {"temperature": TEMPERATURE, "beta": (0.0, 1.0)}, "Agarwal et al. 2024 (GKD), arXiv 2306.13649",
        "T^2 (beta KL(t || m) + (1 - beta) KL(s || m)), m = beta t + (1 - beta) s; at 0 KL(t || s), at 1 KL(s || t)",
        "response", zero_probabilities=True,
    ),
    "top_k_kd": Loss(
        top_k_kd, {}, "as kept by Shen & Xing 2021, arXiv 2112.01528; the others as one class",
        "sum_k t_k log(t_k/s_k) + r_t log(r_t/r_s), r = 1 - sum_k", "response",
    ),
    "uld": Loss(
        uld, {}, "Boizard et al. 2024 (ULD), arXiv 2402.12030; groups: GOLD (trl)",
        "sum_i |sort(t)_i - sort(s)_i|, of groups of tokens of the same text", "response",
        mean_over="groups", mixed_labels=False, zero_probabilities=True,
    ),
    "aligned_kd": Loss(
        aligned_kd, {}, "alignment: GOLD (trl)",
        "m KL(t || s) among common tokens, m their sum of t; of longer groups KL of their text against all else",
        "response", mean_over="groups", mixed_labels=False, zero_probabilities=True,
    ),
}  # fmt: skip


def hides_tokens(names: Iterable[str]) -> bool:
    """Whether one of these losses is on tokens that were hidden from the networks."""
    return any("token_labels" in LOSSES[name].needs for name in names if name in LOSSES)


def bind(name: str, parameters: Mapping[str, object], where: str) -> tuple[Callable[..., Tensor], tuple[str, ...]]:
    """The loss `name` with its parameters filled in, and the names of the tensors that it takes.

    Raises KdcError for an unknown loss or parameter, or for a value out of its range; `where` begins the message.
    """
    if name not in LOSSES:
        raise KdcError(f"{where}: unknown loss {name}{did_you_mean(name, LOSSES)}; known: {', '.join(LOSSES)}")
    loss = LOSSES[name]
    filled: dict[str, float] = {}
    for key, value in parameters.items():
        if key not in loss.ranges:
            known = f"known: {', '.join(loss.ranges)}" if loss.ranges else "it has none"
            raise KdcError(f"{where}: loss {name} has no parameter {key}{did_you_mean(key, loss.ranges)}; {known}")
        low, high = loss.ranges[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise KdcError(f"{where}: {name}.{key} must be a number from {low:g} to {high:g}, found {value!r}")
        whole = key in loss.whole
        if whole and value != int(value):
            raise KdcError(f"{where}: {name}.{key} must be a whole number, found {value!r}")
        filled[key] = int(value) if whole else value
    return partial(loss.function, **filled), loss.needs


def described(name: str) -> dict[str, object]:
    """The row of the loss `name` as JSON has it; `parameters` with default, lowest and highest value."""
    loss = LOSSES[name]
    return {
        "name": name,
        "knowledge": loss.knowledge,
        "formula": loss.formula,
        "parameters": {
            key: {"default": loss.defaults[key], "lowest": low, "highest": high}
            for key, (low, high) in loss.ranges.items()
        },
        "needs": list(loss.needs),
        "taps": loss.taps,
        "connector": loss.connector,
        "mean_over": loss.mean_over,
        "layers": loss.layers,
        "mixed_labels": loss.mixed_labels,
        "zero_at_agreement": loss.zero_at_agreement,
        "zero_probabilities": loss.zero_probabilities,
        "raw_logits": loss.raw_logits,
        "temperature_scaled": loss.temperature_scaled,
        "exact_gradient": loss.exact_gradient,
        "one_process": loss.one_process,
        "paper": loss.paper,
    }
