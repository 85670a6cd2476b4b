"""All frames of our own cells at once: hand-written backward passes, in plain torch operations.

A recurrent loop is slow for two reasons: many small operations, and an autograd graph that records
every one of them. Here the input projections come in as one product over all frames; a step is one
product (two for the GRU that resets before) and a few element-wise operations into buffers that
exist already; backward keeps the gates' activations and the states, nothing else, and computes the
gradient of the recurrent weights as one product after the time loop.

Written ``da`` is the gradient of the loss with respect to ``a``, what a gate is before its
squashing; ``c_`` and ``h_`` are the states of the frame before. Time comes first: (T, B, ...). The
equations are in ``cells.py``, beside the ``step`` that each kernel is tested against. Everything
works in float32 and float64, on every device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input  # dy * y * (1 - y)
tanh_backward = torch.ops.aten.tanh_backward.grad_input  # dy * (1 - y^2)


def ahead(x: Tensor, parts: int) -> Iterator[tuple[Tensor, ...]]:
    """x (T, B, parts * H): at each frame, the parts (B, H)."""
    return zip(*(part.unbind() for part in x.chunk(parts, dim=2)), strict=True)


def back(x: Tensor, parts: int) -> Iterator[tuple[Tensor, ...]]:
    """The same from the last frame to the first."""
    return zip(*(part.unbind()[::-1] for part in x.chunk(parts, dim=2)), strict=True)


def before(first: Tensor, states: Tensor) -> tuple[Tensor, ...]:
    """The state that each frame of states (T, B, H) started from."""
    return (first, *states.unbind()[:-1])


def weight_gradient(da: Tensor, first: Tensor, states: Tensor) -> Tensor:
    """Sum over frames of da_t (B, G)' h_{t-1} (B, H), as one product: (G, H)."""
    return torch.addmm(da[0].t() @ first, da[1:].flatten(0, 1).t(), states[:-1].flatten(0, 1))


class PeepholeKernel(Function):
    """The LSTM with peepholes. Gates in the order i, f, g, o; peepholes (3, H) of i, f, o.

    Backward, from the last frame to the first (dh and dc come in from the frame after):

    dh   += dy                                  the loss sees h as an output too
    da_o  = dh * tanh(c) * o * (1 - o)
    dc   += dh * o * (1 - tanh(c)^2) + da_o * p_o
    da_i  = dc * g * i * (1 - i)
    da_f  = dc * c_ * f * (1 - f)
    da_g  = dc * i * (1 - g^2)
    dc_   = dc * f + da_i * p_i + da_f * p_f    dc * f is the constant error carousel
    dh_   = U' da
    """

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, weight_hh: Tensor, peepholes: Tensor, h0: Tensor, c0: Tensor
    ) -> tuple[Tensor, Tensor]:
        """projected (T, B, 4H), states (B, H) -> outputs (T, B, H), the last cell state (B, H)."""
        (T, B, _), H = projected.shape, h0.shape[1]
        gates = torch.empty_like(projected)
        hs, cs = projected.new_empty(T, B, H), projected.new_empty(T, B, H)
        weight = weight_hh.t().contiguous()  # of the two layouts the one twice as fast here
        p_if, p_o = peepholes[:2], peepholes[2]
        h_, c_ = h0, c0
        for x, a, a_if, (i, f, g, o), h, c in zip(
            projected,
            gates,
            gates.view(T, B, 4, H)[:, :, :2],
            ahead(gates, 4),
            hs,
            cs,
            strict=True,
        ):
            torch.addmm(x, h_, weight, out=a)
            a_if.addcmul_(c_[:, None], p_if).sigmoid_()
            g.tanh_()
            torch.mul(f, c_, out=c).addcmul_(i, g)
            o.addcmul_(c, p_o).sigmoid_()
            torch.tanh(c, out=h).mul_(o)
            h_, c_ = h, c
        ctx.save_for_backward(gates, hs, cs, weight_hh, peepholes, h0, c0)
        return hs, c_.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dhs: Tensor, dc_last: Tensor) -> tuple[Tensor, ...]:
        gates, hs, cs, weight_hh, peepholes, h0, c0 = ctx.saved_tensors
        dgates = torch.empty_like(gates)
        dh, dc = torch.zeros_like(h0), dc_last.clone()
        work, tanh_c = torch.empty_like(h0), torch.empty_like(h0)
        p_i, p_f, p_o = peepholes
        dp_i, dp_f, dp_o = dp = h0.new_zeros(3, *h0.shape)
        for dy, (i, f, g, o), da, (da_i, da_f, da_g, da_o), c, c_ in zip(
            reversed(dhs.unbind()),
            back(gates, 4),
            reversed(dgates.unbind()),
            back(dgates, 4),
            reversed(cs.unbind()),
            reversed(before(c0, cs)),
            strict=True,
        ):
            dh += dy
            torch.tanh(c, out=tanh_c)
            sigmoid_backward(torch.mul(dh, tanh_c, out=work), o, grad_input=da_o)
            dc += tanh_backward(torch.mul(dh, o, out=work), tanh_c, grad_input=work)
            dc.addcmul_(da_o, p_o)
            sigmoid_backward(torch.mul(dc, g, out=work), i, grad_input=da_i)
            sigmoid_backward(torch.mul(dc, c_, out=work), f, grad_input=da_f)
            tanh_backward(torch.mul(dc, i, out=work), g, grad_input=da_g)
            dc.mul_(f).addcmul_(da_i, p_i).addcmul_(da_f, p_f)
            dp_i.addcmul_(da_i, c_)
            dp_f.addcmul_(da_f, c_)
            dp_o.addcmul_(da_o, c)
            torch.mm(da, weight_hh, out=dh)
        return dgates, weight_gradient(dgates, h0, hs), dp.sum(1), dh, dc


class CoupledKernel(Function):
    """The LSTM whose input gate is what its forget gate leaves. Gates in the order f, o, g.

    Backward, from the last frame to the first:

    dh   += dy
    da_o  = dh * tanh(c) * o * (1 - o)
    dc   += dh * o * (1 - tanh(c)^2)
    da_f  = dc * (c_ - g) * f * (1 - f)
    da_g  = (dc - dc * f) * (1 - g^2)
    dc_   = dc * f
    dh_   = U' da
    """

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, weight_hh: Tensor, h0: Tensor, c0: Tensor
    ) -> tuple[Tensor, Tensor]:
        """projected (T, B, 3H), states (B, H) -> outputs (T, B, H), the last cell state (B, H)."""
        (T, B, _), H = projected.shape, h0.shape[1]
        gates = torch.empty_like(projected)
        hs, cs = projected.new_empty(T, B, H), projected.new_empty(T, B, H)
        weight = weight_hh.t().contiguous()
        h_, c_ = h0, c0
        for x, a, a_fo, (f, o, g), h, c in zip(
            projected, gates, gates[:, :, : 2 * H], ahead(gates, 3), hs, cs, strict=True
        ):
            torch.addmm(x, h_, weight, out=a)
            a_fo.sigmoid_()
            g.tanh_()
            torch.lerp(g, c_, f, out=c)
            torch.tanh(c, out=h).mul_(o)
            h_, c_ = h, c
        ctx.save_for_backward(gates, hs, cs, weight_hh, h0, c0)
        return hs, c_.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dhs: Tensor, dc_last: Tensor) -> tuple[Tensor, ...]:
        gates, hs, cs, weight_hh, h0, c0 = ctx.saved_tensors
        dgates = torch.empty_like(gates)
        dh, dc = torch.zeros_like(h0), dc_last.clone()
        work, tanh_c = torch.empty_like(h0), torch.empty_like(h0)
        for dy, (f, o, g), da, (da_f, da_o, da_g), c, c_ in zip(
            reversed(dhs.unbind()),
            back(gates, 3),
            reversed(dgates.unbind()),
            back(dgates, 3),
            reversed(cs.unbind()),
            reversed(before(c0, cs)),
            strict=True,
        ):
            dh += dy
            torch.tanh(c, out=tanh_c)
            sigmoid_backward(torch.mul(dh, tanh_c, out=work), o, grad_input=da_o)
            dc += tanh_backward(torch.mul(dh, o, out=work), tanh_c, grad_input=work)
            sigmoid_backward(torch.sub(c_, g, out=work).mul_(dc), f, grad_input=da_f)
            torch.mul(dc, f, out=work)
            tanh_backward(dc.sub_(work), g, grad_input=da_g)
            dc, work = work, dc
            torch.mm(da, weight_hh, out=dh)
        return dgates, weight_gradient(dgates, h0, hs), dh, dc


class ResetBeforeKernel(Function):
    """The GRU that resets before the product. Gates in the order r, z, n; q = r * h_.

    Backward, from the last frame to the first:

    dh   += dy
    da_z  = dh * (h_ - n) * z * (1 - z)
    da_n  = (dh - dh * z) * (1 - n^2)
    dq    = U_n' da_n
    da_r  = dq * h_ * r * (1 - r)
    dh_   = dh * z + dq * r + U_r' da_r + U_z' da_z
    """

    @staticmethod
    def forward(ctx: Any, projected: Tensor, weight_hh: Tensor, h0: Tensor) -> Tensor:
        """projected (T, B, 3H), state (B, H) -> outputs (T, B, H)."""
        (T, B, _), H = projected.shape, h0.shape[1]
        gates = torch.empty_like(projected)
        hs = projected.new_empty(T, B, H)
        weight_rz = weight_hh[: 2 * H].t().contiguous()
        weight_n = weight_hh[2 * H :].t().contiguous()
        q = torch.empty_like(h0)
        h_ = h0
        for x_rz, x_n, a_rz, (r, z, n), h in zip(
            projected[:, :, : 2 * H],
            projected[:, :, 2 * H :],
            gates[:, :, : 2 * H],
            ahead(gates, 3),
            hs,
            strict=True,
        ):
            torch.addmm(x_rz, h_, weight_rz, out=a_rz).sigmoid_()
            torch.addmm(x_n, torch.mul(r, h_, out=q), weight_n, out=n).tanh_()
            torch.lerp(n, h_, z, out=h)
            h_ = h
        ctx.save_for_backward(gates, hs, weight_hh, h0)
        return hs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dhs: Tensor) -> tuple[Tensor, ...]:
        gates, hs, weight_hh, h0 = ctx.saved_tensors
        H = h0.shape[1]
        weight_rz, weight_n = weight_hh[: 2 * H], weight_hh[2 * H :]
        dgates = torch.empty_like(gates)
        dgates_rz = dgates[:, :, : 2 * H]
        qs = torch.empty_like(hs)
        dh, dq, work = torch.zeros_like(h0), torch.empty_like(h0), torch.empty_like(h0)
        for dy, (r, z, n), da_rz, (da_r, da_z, da_n), q, h_ in zip(
            reversed(dhs.unbind()),
            back(gates, 3),
            reversed(dgates_rz.unbind()),
            back(dgates, 3),
            reversed(qs.unbind()),
            reversed(before(h0, hs)),
            strict=True,
        ):
            dh += dy
            sigmoid_backward(torch.sub(h_, n, out=work).mul_(dh), z, grad_input=da_z)
            torch.mul(dh, z, out=work)
            tanh_backward(dh.sub_(work), n, grad_input=da_n)
            torch.mm(da_n, weight_n, out=dq)
            torch.mul(r, h_, out=q)
            work.addcmul_(dq, r)
            sigmoid_backward(dq.mul_(h_), r, grad_input=da_r)
            torch.addmm(work, da_rz, weight_rz, out=dh)
        dweight_rz = weight_gradient(dgates_rz, h0, hs)
        dweight_n = dgates[:, :, 2 * H :].flatten(0, 1).t() @ qs.flatten(0, 1)
        return dgates, torch.cat([dweight_rz, dweight_n]), dh
