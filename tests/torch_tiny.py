"""Small PyTorch modules for export, made by functions without arguments; only workers import this module."""

import torch


class GroupNormSiLU(torch.nn.Module):
    def __init__(self, groups, channels, epsilon):
        super().__init__()
        self.norm = torch.nn.GroupNorm(groups, channels, eps=epsilon)

    def forward(self, x):
        return torch.nn.functional.silu(self.norm(x))


class Net(torch.nn.Module):
    """Two normalisations that differ in groups and epsilon, and an answer with two parts."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = GroupNormSiLU(4, 8, 1e-5)
        self.second = torch.nn.Conv2d(8, 6, 3, padding=1)
        self.last = GroupNormSiLU(2, 6, 1e-3)
        for part in (self.norm, self.last):
            torch.nn.init.normal_(part.norm.weight)
            torch.nn.init.normal_(part.norm.bias)

    def forward(self, x):
        x = self.norm(self.first(x))
        return {"deep": self.last(self.second(x)), "flat": torch.nn.functional.gelu(x.mean((2, 3)))}


def net():
    return Net()


class Batch(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 4))

    def forward(self, x):
        return x + self.weight  # only a batch of 2 fits


def batch_of_two():
    return Batch()


class Strange(torch.nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x) + torch.lgamma(x) + torch.special.bessel_y0(x)


def strange():
    return Strange()


def not_a_module():
    return "a module"
