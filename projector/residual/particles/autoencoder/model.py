"""The network: any number of tokens is encoded to a fixed number of vectors, and decoded again.

As in a Perceiver (Jaegle et al. 2021, arXiv:2103.03206), a fixed number of learned queries attend
to the tokens, and each gives one vector, a particle. Position queries attend to the particles and
reconstruct every token. Each token has a position encoding, so the same tokens in another order
give other particles. Attention uses both content and position: the particles are spread evenly over
the sequence, and initially each attends to one token. The particles of one token share its
principal components: the first reads the largest components, the next one the following ones. If a
token has more particles than needed for all components, the additional particles read it in random
directions, which the decoder learns to use. Training thus starts close to the result of PCA and
improves on it.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn

# Channels of queries and keys, and of what is between a perceptron's two layers.
_N_CHANNELS, _N_INNER = 32, 256
# A logit falls by this for a distance of one token, squared; softmax then gives a neighbour 0.0003.
_SHARPNESS = 8.0
_N_WAVES = 16
# The particles of one token differ for sequences of as many tokens as this, and more.
_FEWEST_TOKENS = 8
# Of the code of places: sines and cosines of four wavelengths, 6 to 400 tokens.
_N_CODES, _LONGEST_WAVE = 4, 64.0


class Autoencoder(nn.Module):
    """Encoder and decoder for the states of one sequence in one frame.

    Args:
        n_hidden: H, the width of the stream.
        n_particles: K, the number of particles.
        width: W, the width of a particle. ``n_whole`` = H / W particles can hold a whole token.
        basis: (H, H) orthogonal, with the stream's principal components as columns, the largest
            variance first, to initialise encoder and decoder. None for random directions.
        generator: random generator of the initial weights.
    """

    def __init__(
        self,
        n_hidden: int,
        n_particles: int,
        width: int,
        *,
        basis: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_hidden, self.n_particles, self.width = n_hidden, n_particles, width
        n_whole = math.ceil(n_hidden / width)
        self.n_whole = n_whole
        self.n_turns = max(n_whole, math.ceil(n_particles / _FEWEST_TOKENS))

        def normal(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(*shape, generator=generator))

        if basis is None:
            basis = torch.linalg.qr(torch.randn(n_hidden, n_hidden, generator=generator)).Q
        reads, writes = basis, basis.T
        while reads.shape[1] < self.n_turns * width:
            # A turn that comes when the whole token is read looks at it from other sides.
            other = torch.linalg.qr(torch.randn(n_hidden, n_hidden, generator=generator)).Q
            reads = torch.cat([reads, other], dim=1)
            writes = torch.cat([writes, torch.zeros_like(other)])
        n_read = self.n_turns * width
        self.queries = normal(n_particles, _N_CHANNELS, scale=0.1)
        self.shifts = nn.Parameter(torch.zeros(n_particles))
        self.token_keys = normal(n_hidden, _N_CHANNELS, scale=0.1 / math.sqrt(n_hidden))
        self.read = nn.Parameter(reads[:, :n_read].clone())
        # No more than the first particle of a token can carry.
        n_codes = min(2 * _N_CODES, width, n_hidden)
        self.places = nn.Parameter(basis[:, :n_codes].T.clone())
        self.before = _Perceptron(n_hidden, generator)
        self.place_queries = normal(2 * _N_WAVES, _N_CHANNELS, scale=0.1)
        self.particle_keys = normal(width, _N_CHANNELS, scale=0.1 / math.sqrt(width))
        self.write = nn.Parameter(writes[:n_read].clone())
        self.behind = _Perceptron(n_hidden, generator)
        self.sharpness = nn.Parameter(torch.tensor([_SHARPNESS, _SHARPNESS]).log())
        # What a token's query gets where no particle of a turn is near.
        self.nothing = nn.Parameter(torch.full((self.n_turns,), -_SHARPNESS / 2))

    def attention(self, states: Tensor) -> Tensor:
        """The attention of each particle to each token: (B, T, H) → (B, K, T), rows sum to 1."""
        return self._attend(self._seen(states))

    def encode(self, states: Tensor) -> Tensor:
        """Encode sequences to particles: (B, T, H) → (B, K, W)."""
        seen = self._seen(states)
        pattern = self._attend(seen)
        groups = _groups(self.n_particles, states.shape[1], self.n_turns)
        # Only what some particle reads at this length: of long sequences it is the smaller part.
        read = self.read[:, : len(groups) * self.width]
        values = (seen @ read).unflatten(-1, (len(groups), self.width))
        parts = [pattern[:, group] @ values[:, :, turn] for turn, group in enumerate(groups)]
        order = torch.cat(groups)
        return torch.cat(parts, dim=1)[:, order.argsort()]

    def decode(self, particles: Tensor, n_tokens: int) -> Tensor:
        """Decode particles to tokens: (B, K, W) → (B, T, H) for T = ``n_tokens``."""
        places = (torch.arange(n_tokens) + 0.5) / n_tokens
        queries = _waves(places) @ self.place_queries
        keys = particles @ self.particle_keys + self.queries
        logits = queries @ keys.mT / math.sqrt(_N_CHANNELS)
        logits = logits - self.sharpness[1].exp() * self._distances(n_tokens).T.square()
        groups = _groups(self.n_particles, n_tokens, self.n_turns)
        taken = []
        for turn, group in enumerate(groups):
            nothing = self.nothing[turn].expand(*logits.shape[:2], 1)
            weights = torch.cat([logits[:, :, group], nothing], dim=-1).softmax(dim=-1)
            taken.append(weights[:, :, :-1] @ particles[:, group])
        write = self.write[: len(groups) * self.width]
        found: Tensor = self.behind(torch.cat(taken, dim=-1) @ write - self._code(n_tokens))
        return found

    def written(self, particles: Tensor, n_tokens: int) -> Tensor:
        """The output of each particle in the stream: (B, K, W) → (B, K, H), normalised.

        A particle's own numbers are coordinates along different directions for different particles,
        so only the outputs can be compared. From the sum for a token, the decoder subtracts the
        position encoding, and adds the output of its last perceptron.
        """
        found = particles.new_zeros(*particles.shape[:2], self.n_hidden)
        writes = self.write.unflatten(0, (self.n_turns, self.width))
        for turn, group in enumerate(_groups(self.n_particles, n_tokens, self.n_turns)):
            found[:, group] = particles[:, group] @ writes[turn]
        return found

    def needed(self, n_tokens: int) -> Tensor:
        """The first ``n_whole`` particles of each token, (K,) bool.

        Additional particles read the same again, and learn to write little.
        """
        return _rank_in_token(self.n_particles, n_tokens) < self.n_whole

    def copies(self, n_tokens: int) -> Tensor:
        """Particles that read the same as an earlier particle of their token, (K,) bool."""
        return _rank_in_token(self.n_particles, n_tokens) >= self.n_turns

    def forward(self, states: Tensor) -> Tensor:
        """Encode and decode: (B, T, H) → (B, T, H)."""
        return self.decode(self.encode(states), states.shape[1])

    def _seen(self, states: Tensor) -> Tensor:
        found: Tensor = self.before(states) + self._code(states.shape[1])
        return found

    def _code(self, n_tokens: int) -> Tensor:
        """(T, H), what each place adds to its token."""
        powers = torch.arange(_N_CODES) / (_N_CODES - 1)
        angles = torch.arange(n_tokens)[:, None] * _LONGEST_WAVE**-powers
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        return waves[:, : len(self.places)] @ self.places

    def _attend(self, seen: Tensor) -> Tensor:
        logits = self.queries @ (seen @ self.token_keys).mT / math.sqrt(_N_CHANNELS)
        far = self._distances(seen.shape[1]).square()
        return (logits - self.sharpness[0].exp() * far).softmax(dim=-1)

    def _distances(self, n_tokens: int) -> Tensor:
        """(K, T) from the place of each particle to each token, in tokens, or in steps between
        particles where there are fewer of them."""
        own = _own_tokens(self.n_particles, n_tokens)
        steps = max(1.0, n_tokens / self.n_particles)
        return ((own + self.shifts)[:, None] - torch.arange(n_tokens)) / steps


class _Perceptron(nn.Module):
    """x + a layer of gelu; at the start it adds nothing."""

    def __init__(self, n_hidden: int, generator: torch.Generator | None) -> None:
        super().__init__()
        scale = 1 / math.sqrt(n_hidden)
        self.wide = nn.Parameter(scale * torch.randn(n_hidden, _N_INNER, generator=generator))
        self.wide_bias = nn.Parameter(torch.zeros(_N_INNER))
        self.narrow = nn.Parameter(torch.zeros(_N_INNER, n_hidden))
        self.bias = nn.Parameter(torch.zeros(n_hidden))

    def forward(self, x: Tensor) -> Tensor:
        added = nn.functional.gelu(x @ self.wide + self.wide_bias) @ self.narrow
        return x + added + self.bias


def _own_tokens(n_particles: int, n_tokens: int) -> Tensor:
    """(K,) the token at which each particle stands."""
    return (torch.arange(n_particles) * 2 + 1) * n_tokens // (2 * n_particles)


def _rank_in_token(n_particles: int, n_tokens: int) -> Tensor:
    """(K,) how many particles of its token come before each."""
    own = _own_tokens(n_particles, n_tokens)
    return torch.arange(n_particles) - torch.searchsorted(own, own)


@cache
def _groups(n_particles: int, n_tokens: int, n_turns: int) -> tuple[Tensor, ...]:
    """The particles of each turn: those of one token have the turns 0, 1, … in order."""
    turn = _rank_in_token(n_particles, n_tokens) % n_turns
    return tuple((turn == i).nonzero()[:, 0] for i in range(int(turn.max()) + 1))


def _waves(places: Tensor) -> Tensor:
    """(T,) from 0 to 1 → (T, 2 · n_waves): sines and cosines of doubling and finer steps."""
    angles = places[:, None] * math.pi * torch.arange(1, _N_WAVES + 1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
