"""The histograms of currents that a recorded run saves beside its metrics."""

import torch

from eisnn.data import Dataset, Loader
from eisnn.files import write_atomically
from eisnn.models import SpikingNetwork
from eisnn.train.run import Run

IMAGES = 64  # evenly from the evaluation split, which may be in the order of the classes; the same in every epoch


class CurrentRecorder:
    """Adds an epoch to `currents.npz` of a run; epochs after it, of a run that was killed, are dropped."""

    def __init__(self, run: Run, model: SpikingNetwork, dataset: Dataset, image_size: int) -> None:
        self.run, self.model = run, model
        like = next(model.parameters())
        chosen = torch.linspace(0, len(dataset.test) - 1, min(IMAGES, len(dataset.test))).round().long()
        few = Loader(dataset.test[chosen], IMAGES, size=image_size, device=like.device)
        self.images = next(few.epoch()).images.to(like.dtype)

    def add(self, epoch: int) -> None:
        """Measure and save; whole or not at all."""
        from eisnn.analysis.histograms import current_histograms, load_histograms, no_histograms

        with torch.autocast(self.images.device.type, enabled=False):
            counts = current_histograms(self.model, self.images)
        file = self.run.currents_file
        before = load_histograms(file) if epoch > 0 and file.exists() else no_histograms(list(counts))
        write_atomically(file, before.with_epoch(epoch, counts).to_bytes())
