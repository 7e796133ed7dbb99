"""What one writes by hand, or calls: the peers of the training benchmark."""

import time
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F


class Timed(LightningModule):
    """Clocks the fit without its set-up."""

    spent: tuple[float, float]

    def on_train_start(self) -> None:
        self.began = time.process_time(), time.perf_counter()

    def on_train_end(self) -> None:
        now = time.process_time(), time.perf_counter()
        self.spent = now[0] - self.began[0], now[1] - self.began[1]


class NaiveGAN(Timed):
    """As the tutorials have it: toggled optimizers, fakes made twice, a log in every step."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = model.decoder, model.discriminator
        self.latent_dim = model.latent_dim

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.0, 0.99))
            for net in (self.generator, self.discriminator)
        ]

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.generator(z))

    def training_step(self, real: Tensor, batch_idx: int) -> None:
        of_generator, of_discriminator = self.optimizers()  # type: ignore[misc]
        z = torch.randn(len(real), self.latent_dim, device=real.device)

        self.toggle_optimizer(of_generator)
        loss = F.softplus(-self.discriminator(self(z))).mean()
        self.log("g_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        of_generator.zero_grad()
        self.manual_backward(loss)
        of_generator.step()
        self.untoggle_optimizer(of_generator)

        self.toggle_optimizer(of_discriminator)
        real_loss = F.softplus(-self.discriminator(real)).mean()
        loss = real_loss + F.softplus(self.discriminator(self(z).detach())).mean()
        self.log("d_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        of_discriminator.zero_grad()
        self.manual_backward(loss)
        of_discriminator.step()
        self.untoggle_optimizer(of_discriminator)


class NaiveVAE(Timed):
    """Automatic optimisation and a log of every term in every step."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def training_step(self, images: Tensor, batch_idx: int) -> Tensor:
        noise = torch.randn(len(images), self.model.latent_dim, device=images.device)
        rate, distortion = self.model.elbo(images, noise)
        loss = (rate + distortion).mean()
        self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("rate", rate.mean(), on_step=True, on_epoch=True)
        self.log("distortion", distortion.mean(), on_step=True, on_epoch=True)
        return loss


def pythae_trainer(model: Any, images: Tensor, batch_size: int) -> Any:
    """pythae's trainer of its VAE over our encoder and decoder, squared error, default optimizer."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self, network: nn.Module) -> None:
            BaseEncoder.__init__(self)
            self.network = network

        def forward(self, x: Tensor) -> Any:
            mu, logvar = self.network(x)
            return ModelOutput(embedding=mu, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def __init__(self, network: nn.Module) -> None:
            BaseDecoder.__init__(self)
            self.network = network

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.network(z))

    settings = VAEConfig(
        input_dim=tuple(images.shape[1:]), latent_dim=model.latent_dim, reconstruction_loss="mse"
    )
    vae = VAE(settings, encoder=Encoder(model.encoder), decoder=Decoder(model.decoder))
    training = BaseTrainerConfig(
        output_dir="/tmp/genbench-pythae",
        per_device_train_batch_size=batch_size,
        num_epochs=1,
        no_cuda=True,
    )
    dataset = BaseDataset(images, torch.zeros(len(images)))
    trainer = BaseTrainer(vae, dataset, training_config=training)
    trainer.prepare_training()
    return trainer
