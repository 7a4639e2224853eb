"""What a training on sounds is fed with: views of waveforms, mixed, and made into what each model takes."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_order, keyed_uniform
from compressor.data.samples import Dataset, Split
from compressor.modes import evaluating
from compressor.processes.team import team
from compressor.progress import Progress
from compressor.schema.preprocess import AudioPreprocess
from compressor.schema.recipe import Recipe
from compressor.schema.student import Accuracy
from compressor.schema.views import OF_SOUNDS
from compressor.stats import accuracy_of, top1
from compressor.stats.language import Costs
from compressor.tasks.audio_classification.features import model_input, start_of, window_of
from compressor.tasks.audio_classification.kept_features import KeptFeatures, bytes_of_features, store_features
from compressor.tasks.audio_classification.views import DRAWS, louder, masked, noisy, refuse_views, shifts
from compressor.tasks.audio_classification.waveforms import Decoding, Waves, bytes_of, store_waves, windows
from compressor.tasks.base import Batch, BatchModel, SplitName
from compressor.tasks.mixing import Mix, mix_of, mixed_labels, onto
from compressor.tasks.plain_feed import batch_size_of

__all__ = ["AudioFeed", "model_input", "needed_bytes"]

EVAL_BATCH = 128
Rows = NDArray[np.int64]


class AudioFeed:
    """See `tasks.base.Feed`. `inputs`: key in the batch -> what that model takes. All hear the same view of a sound,
    each at its own rate. `store`: where sounds are decoded to; None: they are decoded anew each time."""

    def __init__(
        self, data: Dataset, inputs: dict[str, AudioPreprocess], recipe: Recipe, store: Path | None,
        device: torch.device, progress: Progress,
    ) -> None:  # fmt: skip
        refuse_views(recipe.views, inputs)
        self._data, self._inputs, self._recipe = data, inputs, recipe
        self._store, self._device, self._progress = store, device, progress
        self._opened: dict[tuple[str, int], Waves] = {}
        self._kept: dict[tuple[str, AudioPreprocess], KeptFeatures] = {}
        self.right: dict[tuple[str, str], NDArray[np.bool_]] = {}
        self.costs: dict[tuple[str, str], Costs] = {}
        self._team = team()
        self._has_label = data.train.labels >= 0
        self._global, self.batch_size = batch_size_of(recipe, len(data.train), self._team.num_processes)

    @property
    def steps_per_epoch(self) -> int:
        # The rest of an epoch that fills no step is left out; another one each epoch, since the order changes.
        return len(self._data.train) // self._global

    def prepare(self) -> None:
        for preprocess in self._inputs.values():
            for split in (self._data.train, self._data.validation):
                self._waves(split, preprocess.sample_rate)
                if split is self._data.validation or self._as_they_stand:
                    self._features(split, preprocess)

    def identity(self, key: str) -> dict[str, object]:
        unlabelled, views = self._data.info.unlabelled, self._recipe.views
        return {
            "data": self._data.info.fingerprint,
            **({"unlabelled": unlabelled.fingerprint} if unlabelled else {}),
            "order": hashlib.sha256(self._data.train.contents.tobytes()).hexdigest(),
            "preprocess": self._inputs[key].model_dump(mode="json"),
            "seed": self._recipe.seed,
            "views": views.model_dump(mode="json", include={*OF_SOUNDS, "mixup", "mix_probability", "distinct"}),
        }

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        keys = [key for key in self._inputs if keys is None or key in keys]
        view, labels = self._view(epoch), self._data.train.labels
        order = keyed_order(self._recipe.seed, len(self._data.train), epoch)
        for step in range(first_step, self.steps_per_epoch):
            samples = self._step(order, step)
            for part in self._parts_of_process(samples):
                mix = self._mix(part, view)
                targets = torch.from_numpy(labels[part]).to(self._device)
                if mix is not None:
                    partners = torch.from_numpy(labels[mix.partner]).to(self._device)
                    targets = mixed_labels(targets, partners, mix, len(self._data.info.class_names))
                batch = self._inputs_of(keys, part, view, mix)
                if not self._has_label.all():
                    batch |= self._labelled(part, mix, samples, view)
                yield {**batch, "labels": targets, "index": torch.from_numpy(part)}

    def input_of(self, key: str, samples: Rows, view: int) -> Batch:
        return self._inputs_of([key], samples, view, self._mix(samples, view))

    def samples_of(self, epoch: int, step: int) -> Rows:
        return self._step(keyed_order(self._recipe.seed, len(self._data.train), epoch), step)

    def names(self, samples: Rows) -> list[str]:
        return [self._data.train.ids[number] for number in samples]

    def evaluate(self, model: BatchModel, split: SplitName) -> Accuracy:
        return accuracy_of(*self.answers_on(model, split), split)

    def answers_on(self, model: BatchModel, split: SplitName) -> tuple[NDArray[np.float32], Rows]:
        held: Split = getattr(self._data, split)
        logits = self.logits(model, split)
        self.right[model.key, split] = top1(logits) == held.labels
        return logits, held.labels

    def logits(self, model: BatchModel, split: SplitName) -> NDArray[np.float32]:
        """See `Feed`. Each process takes every so many-th chunk; the answers are gathered, so that all have them."""
        held: Split = getattr(self._data, split)
        preprocess = self._inputs[model.key]
        starts = range(0, len(held), EVAL_BATCH)[self._team.process_index :: self._team.num_processes]
        answers: list[tuple[int, NDArray[np.float32]]] = []
        with evaluating(model):
            for start in starts:
                rows = np.arange(start, min(start + EVAL_BATCH, len(held)))
                made = self._plain(held, preprocess, rows)
                answers.append((start, model.network(made.to(self._device)).float().cpu().numpy()))
        if self._team.num_processes > 1:
            answers = sorted(gather_object(answers), key=lambda answer: answer[0])
        return np.concatenate([logits for _, logits in answers])

    def _view(self, epoch: int) -> int:
        distinct = self._recipe.views.distinct
        return epoch if distinct is None else epoch % distinct

    def _step(self, order: Rows, step: int) -> Rows:
        """The samples of a step, of all processes and parts."""
        return order[step * self._global : (step + 1) * self._global]

    def _parts_of_process(self, samples: Rows) -> list[Rows]:
        """This process's share of a step, in parts."""
        parts = samples.reshape(self._recipe.accumulate, self._team.num_processes, -1)
        return [parts[number, self._team.process_index] for number in range(self._recipe.accumulate)]

    def _labelled(self, part: Rows, mix: Mix | None, step: Rows, view: int) -> dict[str, Tensor]:
        """Which rows of a part have a label, and what its mean over them counts in the mean over the whole step."""
        known = self._known(part, mix)
        known_in_step = self._known(step, self._mix(step, view))
        share = known.mean() / known_in_step.mean() if known_in_step.any() else 0.0
        return {"labelled": torch.from_numpy(np.flatnonzero(known)), "labelled_share": torch.tensor(float(share))}

    def _known(self, samples: Rows, mix: Mix | None) -> NDArray[np.bool_]:
        """Whether each has a label: where sounds are mixed, all of those that count (`mixed_labels`)."""
        known = self._has_label[samples]
        if mix is not None:
            known = (known | (mix.weight == 0)) & (self._has_label[mix.partner] | (mix.weight == 1))
        return known

    def _mix(self, samples: Rows, view: int) -> Mix | None:
        return mix_of(self._recipe.seed, samples, view, len(self._data.train), self._recipe.views)

    def _inputs_of(self, keys: Sequence[str], samples: Rows, view: int, mix: Mix | None) -> dict[str, Tensor]:
        """The models' inputs. Models that take the same are given the same, made once."""
        made: dict[AudioPreprocess, Tensor] = {}
        inputs = {}
        for key in keys:
            preprocess = self._inputs[key]
            if preprocess not in made:
                made[preprocess] = self._made(preprocess, samples, view, mix)
            inputs[key] = made[preprocess]
        return inputs

    def _made(self, preprocess: AudioPreprocess, samples: Rows, view: int, mix: Mix | None) -> Tensor:
        views, seed = self._recipe.views, self._recipe.seed
        if self._as_they_stand:
            made = self._plain(self._data.train, preprocess, samples).to(self._device)
        else:
            heard = self._heard(preprocess, samples, view)
            if mix is not None:
                share = onto(mix.weight.astype(np.float64), self._device)[:, None]
                heard = heard * share + self._heard(preprocess, mix.partner, view) * (1 - share)
            made = model_input(heard, preprocess)
        # The mean of the features, where it is masked: 0 once they are normalised.
        return masked(made, keyed_uniform(seed, samples, view, DRAWS), views, 0.0)

    def _heard(self, preprocess: AudioPreprocess, samples: Rows, view: int) -> Tensor:
        """The views of these sounds, float32 [B, samples], before they are mixed."""
        views, seed = self._recipe.views, self._recipe.seed
        numbers = keyed_uniform(seed, samples, view, DRAWS)
        later = shifts(numbers, views, preprocess.sample_rate)
        read = self._waves(self._data.train, preprocess.sample_rate).of(samples)
        cut = [
            window_of(wave, start_of(len(wave), preprocess.samples) + int(shift), preprocess.samples)
            for wave, shift in zip(read, later, strict=True)
        ]
        waves = torch.from_numpy(np.stack(cut)).to(self._device)
        return noisy(louder(waves, numbers, views), numbers, views, seed, samples, view)

    @property
    def _as_they_stand(self) -> bool:
        """Whether the views leave the waveforms of the training sounds alone."""
        views = self._recipe.views
        return not (views.time_shift or views.gain or views.noise or views.mixup)

    def _plain(self, split: Split, preprocess: AudioPreprocess, rows: Rows) -> Tensor:
        """What a model takes of these sounds as they stand."""
        kept = self._features(split, preprocess)
        if kept is not None:
            return kept.of(rows)
        waves = self._waves(split, preprocess.sample_rate)
        return model_input(torch.from_numpy(windows(split, rows, preprocess, waves)), preprocess)

    def _features(self, split: Split, preprocess: AudioPreprocess) -> KeptFeatures | None:
        """Those on disk; None where none are kept: without a store, and of the test split, which is heard once."""
        if self._store is None or split is self._data.test or preprocess.features == "waveform":
            return None
        if (split.name, preprocess) not in self._kept:
            waves = self._waves(split, preprocess.sample_rate)
            with self._team.local_main_process_first():
                made = store_features(split, preprocess, waves, self._store, self._progress)
            self._kept[split.name, preprocess] = made
        return self._kept[split.name, preprocess]

    def _waves(self, split: Split, rate: int) -> Waves:
        if (split.name, rate) not in self._opened:
            if self._store is None:
                self._opened[split.name, rate] = Decoding(split, rate)
            else:
                with self._team.local_main_process_first():
                    self._opened[split.name, rate] = store_waves(split, rate, self._store, self._progress)
        return self._opened[split.name, rate]


def needed_bytes(data: Dataset, inputs: Mapping[str, AudioPreprocess]) -> int:
    """What all splits take, decoded at the rates of these models, and the features that are kept."""
    rates = {preprocess.sample_rate for preprocess in inputs.values()}
    decoded = sum(bytes_of(split, rate) for split in (data.train, data.validation, data.test) for rate in rates)
    kept = {preprocess for preprocess in inputs.values() if preprocess.features == "log-mel"}
    return decoded + sum(bytes_of_features(split, each) for split in (data.train, data.validation) for each in kept)
