"""What a training on sounds is fed with: views of waveforms, mixed, and made into what each model takes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_uniform
from compressor.data.samples import Dataset, Split
from compressor.modes import evaluating
from compressor.progress import Progress, note_once
from compressor.schema.preprocess import AudioPreprocess
from compressor.schema.recipe import Recipe
from compressor.schema.views import OF_SOUNDS
from compressor.tasks.audio_classification.features import model_input, start_of, window_of
from compressor.tasks.audio_classification.fitting import heard_of
from compressor.tasks.audio_classification.kept_features import KeptFeatures, bytes_of_features, store_features
from compressor.tasks.audio_classification.views import DRAWS, louder, masked, noisy, refuse_shift, refuse_views, shifts
from compressor.tasks.audio_classification.waveforms import Decoding, Waves, bytes_of, store_waves, windows
from compressor.tasks.base import Batch, BatchModel, SplitName
from compressor.tasks.mixed_feed import MixedFeed, Rows
from compressor.tasks.mixing import Mix, onto

__all__ = ["AudioFeed", "model_input", "needed_bytes"]

EVAL_BATCH = 128


class AudioFeed(MixedFeed):
    """See `tasks.base.Feed`. `inputs`: key in the batch -> what that model takes. All hear the same view of a sound,
    each at its own rate. `store`: where sounds are decoded to; None: they are decoded anew each time."""

    def __init__(
        self, data: Dataset, inputs: dict[str, AudioPreprocess], recipe: Recipe, store: Path | None,
        device: torch.device, progress: Progress,
    ) -> None:  # fmt: skip
        refuse_views(recipe.views, inputs)
        for preprocess in inputs.values() if recipe.views.time_shift else ():
            refuse_shift(recipe.views, data, preprocess)
        super().__init__(data, recipe, device)
        self._inputs, self._store, self._progress = inputs, store, progress
        self._opened: dict[tuple[str, int], Waves] = {}
        self._kept: dict[tuple[str, AudioPreprocess], KeptFeatures] = {}

    def prepare(self) -> None:
        self._tell()
        for preprocess in self._inputs.values():
            for split in (self._data.train, self._data.validation):
                self._waves(split, preprocess.sample_rate)
                if split is self._data.validation or self._as_they_stand:
                    self._features(split, preprocess)

    def _tell(self) -> None:
        """What models that are not trained, and hear otherwise than the student, do to the sounds: of the student it is
        said where that is chosen."""
        for key, preprocess in self._inputs.items():
            done = heard_of(self._data, preprocess)
            if done and preprocess.described != self._inputs["student"].described:
                note_once(self._progress, f"the {key} hears {preprocess.described}: {done}")

    def identity(self, key: str) -> dict[str, object]:
        views = {*OF_SOUNDS, "mixup", "mix_probability", "distinct"}
        return {
            **self._shown(),
            "preprocess": self._inputs[key].model_dump(mode="json"),
            "views": self._recipe.views.model_dump(mode="json", include=views),
        }

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        keys = [key for key in self._inputs if keys is None or key in keys]
        view, order = self._view(epoch), self._order(epoch)
        for step in range(first_step, self.steps_per_epoch):
            samples = self._step(order, step)
            for part in self._parts_of_process(samples):
                mix = self._mix(part, view)
                yield self._inputs_of(keys, part, view, mix) | self._targets(part, mix, samples, view)

    def input_of(self, key: str, samples: Rows, view: int) -> Batch:
        return self._inputs_of([key], samples, view, self._mix(samples, view))

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
