"""Small random models, each made of a library that is imported only then."""

import functools

import torch

# transformers

SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
SPECIAL = dict(bos_token_id=0, eos_token_id=0)


def gpt2(library):
    sizes = dict(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    return library.GPT2LMHeadModel(library.GPT2Config(**sizes, **SPECIAL))


def bert(library):
    config = library.BertConfig(vocab_size=50, max_position_embeddings=16, **SMALL)
    return library.BertForSequenceClassification(config)


def vit(library):
    return library.ViTForImageClassification(library.ViTConfig(image_size=8, patch_size=4, **SMALL))


def t5(library):
    sizes = dict(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    config = library.T5Config(**sizes, decoder_start_token_id=0)
    return library.T5ForConditionalGeneration(config)


def made(make):
    """One of these, for evaluation."""
    import transformers

    torch.manual_seed(0)
    return make(transformers).eval()


# gpytorch


def marginal_likelihood():
    """The loss of a Gaussian process, as a module without arguments."""
    import gpytorch

    class Process(gpytorch.models.ExactGP):
        def __init__(self, x, y, likelihood):
            super().__init__(x, y, likelihood)
            self.mean_module = gpytorch.means.ConstantMean()
            self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())

        def forward(self, x):
            mean, covariance = self.mean_module(x), self.covar_module(x)
            return gpytorch.distributions.MultivariateNormal(mean, covariance)

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.x = torch.linspace(0, 1, 6, dtype=torch.float64)
            self.y = torch.sin(6 * self.x)
            of_noise = gpytorch.likelihoods.GaussianLikelihood()
            self.process = Process(self.x, self.y, of_noise).double().train()
            self.likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(of_noise, self.process)

        def forward(self):
            return -self.likelihood(self.process(self.x), self.y)

    return Loss()


# e3nn


@functools.cache
def energy_of_atoms():
    """The energy of four atoms, of equivariant layers."""
    from e3nn import o3

    torch.manual_seed(0)
    product = o3.FullyConnectedTensorProduct("0e+1o", "0e+1o", "0e+1o+2e").double()
    others = ~torch.eye(4, dtype=torch.bool)

    def energy(positions):
        edges = (positions[:, None] - positions)[others]
        harmonics = o3.spherical_harmonics("0e+1o", edges, True, normalization="component")
        return product(harmonics * edges.norm(dim=1, keepdim=True), harmonics).square().sum()

    return energy
