"""More of the table of test_batching_rules: what neural networks are made of."""

import torch.nn.functional as F

from test.rules.batching_cases import Argument, constant, family, ints, probabilities, t, unit

family(
    "convolution",
    {
        "1d": (F.conv1d, t(2, 4, 7), t(6, 4, 3), t(6)),
        "1d of one image": (F.conv1d, t(4, 7), t(6, 4, 3), t(6)),
        "1d stride": (lambda x, w: F.conv1d(x, w, stride=2, padding=1), t(2, 4, 7), t(6, 4, 3)),
        "1d same": (lambda x, w: F.conv1d(x, w, padding="same"), t(2, 2, 6), t(3, 2, 3)),
        "2d": (F.conv2d, t(2, 3, 6, 5), t(4, 3, 3, 2), t(4)),
        "2d without bias": (F.conv2d, t(2, 3, 6, 5), t(4, 3, 3, 2)),
        "2d of one image": (F.conv2d, t(3, 6, 5), t(4, 3, 3, 2), t(4)),
        "2d stride, padding, dilation": (
            lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2)),
            t(2, 3, 6, 5),
            t(4, 3, 3, 2),
            t(4),
        ),
        "2d groups": (
            lambda x, w, b: F.conv2d(x, w, b, groups=2),
            t(2, 4, 5, 5),
            t(6, 2, 3, 3),
            t(6),
        ),
        "2d depthwise": (
            lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=4),
            t(2, 4, 5, 5),
            t(4, 1, 3, 3),
            t(4),
        ),
        "2d with fewer outputs than channels": (
            lambda x, w, b: F.conv2d(x, w, b, (2, 3), (1, 0), (1, 2)),
            t(2, 3, 4, 6),
            t(9, 3, 3, 2),
            t(9),
        ),
        "1d with fewer outputs than channels": (F.conv1d, t(3, 4), t(5, 3, 3), t(5)),
        "3d": (F.conv3d, t(2, 2, 3, 4, 3), t(3, 2, 2, 2, 2), t(3)),
        "3d groups": (lambda x, w: F.conv3d(x, w, groups=2), t(1, 4, 3, 3, 3), t(4, 2, 2, 2, 2)),
        "transposed 1d": (
            lambda x, w, b: F.conv_transpose1d(x, w, b, stride=2, padding=1, output_padding=1),
            t(2, 4, 5),
            t(4, 3, 3),
            t(3),
        ),
        "transposed 2d": (F.conv_transpose2d, t(2, 3, 4, 4), t(3, 2, 3, 2), t(2)),
        "transposed 2d groups": (
            lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, groups=2, dilation=2),
            t(2, 4, 3, 3),
            t(4, 3, 2, 2),
            t(6),
        ),
        "transposed 3d": (F.conv_transpose3d, t(1, 2, 2, 3, 2), t(2, 3, 2, 2, 2), t(3)),
    },
)


def batch_norm_in_training(x, mean, var, w, b):
    """Also returns the running statistics, which it changes."""
    mean, var = mean.clone(), var.clone()
    return F.batch_norm(x, mean, var, w, b, training=True, momentum=0.3), mean, var


family(
    "normalisation",
    {
        "batch": (F.batch_norm, t(4, 3, 2), constant(t(3)), constant(unit(3)), t(3), t(3)),
        "batch of rank 2": (F.batch_norm, t(4, 3), constant(t(3)), constant(unit(3)), t(3), t(3)),
        "batch without weights": (F.batch_norm, t(4, 3), constant(t(3)), constant(unit(3))),
        "batch statistics": (
            lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
            t(4, 3, 2),
            t(3),
            t(3),
        ),
        "batch in training": (
            batch_norm_in_training,
            t(4, 3, 2),
            Argument(t(3), written=True, constant=True),
            Argument(unit(3), written=True, constant=True),
            t(3),
            t(3),
        ),
        "layer": (lambda x, w, b: F.layer_norm(x, (4,), w, b), t(2, 3, 4), t(4), t(4)),
        "layer of two dims": (lambda x, w: F.layer_norm(x, (3, 4), w), t(2, 3, 4), t(3, 4)),
        "layer without weights": (lambda x: F.layer_norm(x, (4,)), t(3, 4)),
        "layer of one sample": (lambda x, w, b: F.layer_norm(x, (4,), w, b), t(4), t(4), t(4)),
        "group": (lambda x, w, b: F.group_norm(x, 2, w, b), t(3, 4, 5), t(4), t(4)),
        "group without weights": (lambda x: F.group_norm(x, 2), t(3, 4)),
        "instance": (
            lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
            t(3, 4, 5),
            t(4),
            t(4),
        ),
        "instance statistics": (
            lambda x, mean, var: F.instance_norm(x, mean, var, use_input_stats=False),
            t(3, 4, 5),
            constant(t(4)),
            constant(unit(4)),
        ),
        "rms": (lambda x, w: F.rms_norm(x, (4,), w), t(3, 4), t(4)),
        "local response": (lambda x: F.local_response_norm(x, 2), t(2, 4, 3)),
    },
)
family(
    "pooling",
    {
        "max 1d": (lambda x: F.max_pool1d(x, 2), t(2, 3, 6)),
        "max 2d": (lambda x: F.max_pool2d(x, 2), t(2, 3, 4, 6)),
        "max 2d indices": (lambda x: F.max_pool2d(x, 2, return_indices=True), t(2, 3, 4, 6)),
        "max 2d of one image": (lambda x: F.max_pool2d(x, 2, return_indices=True), t(3, 4, 6)),
        "max 2d stride": (lambda x: F.max_pool2d(x, (3, 2), 1, 1, ceil_mode=True), t(2, 3, 4, 6)),
        "max 2d of many planes": (
            lambda x: F.max_pool2d(x, 2, 1, 1, 2, return_indices=True),
            t(2, 5, 5, 6),
        ),
        "max 2d of many large planes": (lambda x: F.max_pool2d(x, 3, 7), t(2, 3, 40, 48)),
        "max 3d": (lambda x: F.max_pool3d(x, 2), t(1, 2, 4, 4, 4)),
        "avg 1d": (lambda x: F.avg_pool1d(x, 2), t(2, 3, 6)),
        "avg 2d": (lambda x: F.avg_pool2d(x, 2, padding=1), t(2, 3, 4, 6)),
        "avg 2d without padding": (
            lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            t(3, 4, 6),
        ),
        "avg 3d": (lambda x: F.avg_pool3d(x, 2), t(1, 2, 4, 4, 4)),
        "adaptive avg 1d": (lambda x: F.adaptive_avg_pool1d(x, 2), t(2, 3, 5)),
        "adaptive avg 2d": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), t(2, 3, 4, 5)),
        "adaptive avg to 1": (lambda x: F.adaptive_avg_pool2d(x, 1), t(2, 3, 4, 5)),
        "adaptive max 1d": (lambda x: F.adaptive_max_pool1d(x, 2), t(2, 3, 5)),
        "adaptive max 2d": (
            lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True),
            t(2, 3, 4, 5),
        ),
        "upsample nearest": (lambda x: F.interpolate(x, scale_factor=2), t(2, 3, 3, 2)),
        "upsample bilinear": (
            lambda x: F.interpolate(x, size=(4, 5), mode="bilinear"),
            t(2, 3, 3, 2),
        ),
    },
)

REDUCTION_MODES = ("none", "mean", "sum")
FLOAT_LOSSES = {
    "mse": (F.mse_loss, t(4, 3), t(4, 3)),
    "l1": (F.l1_loss, t(4, 3), t(4, 3)),
    "smooth_l1": (lambda x, y, reduction: F.smooth_l1_loss(x, y, reduction, 0.7), t(4, 3), t(4, 3)),
    "huber": (lambda x, y, reduction: F.huber_loss(x, y, reduction, 0.7), t(4, 3), t(4, 3)),
    "kl_div": (F.kl_div, t(4, 3), probabilities(4, 3)),
    "kl_div of logs": (
        lambda x, y, reduction: F.kl_div(x, y, reduction=reduction, log_target=True),
        t(4, 3),
        t(4, 3),
    ),
    "bce": (F.binary_cross_entropy, unit(4, 3), unit(4, 3)),
    "bce weights": (
        lambda x, y, w, reduction: F.binary_cross_entropy(x, y, w, reduction=reduction),
        unit(4, 3),
        unit(4, 3),
        constant(unit(3)),
    ),
    "bce_with_logits": (F.binary_cross_entropy_with_logits, t(4, 3), unit(4, 3)),
    "bce_with_logits weights": (
        lambda x, y, w, p, reduction: F.binary_cross_entropy_with_logits(
            x, y, w, reduction=reduction, pos_weight=p
        ),
        t(4, 3),
        unit(4, 3),
        constant(unit(3)),
        constant(unit(3)),
    ),
    "nll": (F.nll_loss, t(4, 3), ints(3, 4)),
    "nll of one sample": (F.nll_loss, t(3), ints(3)),
    "nll ignores": (
        lambda x, y, reduction: F.nll_loss(x, y, ignore_index=1, reduction=reduction),
        t(4, 3),
        ints(3, 4),
    ),
    "nll weights": (
        lambda x, y, w, reduction: F.nll_loss(x, y, w, reduction=reduction, ignore_index=1),
        t(4, 3),
        ints(3, 4),
        constant(unit(3)),
    ),
    "nll 2d": (F.nll_loss, t(2, 3, 2, 4), ints(3, 2, 2, 4)),
    "cross_entropy": (F.cross_entropy, t(4, 3), ints(3, 4)),
    "cross_entropy of one sample": (F.cross_entropy, t(3), ints(3)),
    "cross_entropy of images": (F.cross_entropy, t(2, 3, 4), ints(3, 2, 4)),
    "cross_entropy of probabilities": (F.cross_entropy, t(4, 3), probabilities(4, 3)),
    "cross_entropy smoothed": (
        lambda x, y, w, reduction: F.cross_entropy(
            x, y, w, reduction=reduction, label_smoothing=0.2, ignore_index=1
        ),
        t(4, 3),
        lambda: ints(3, 4)().clamp_(max=1) * 2,
        constant(unit(3)),
    ),
}
family(
    "loss",
    {
        f"{name}, {mode}": (lambda *args, f=loss, r=mode: f(*args, reduction=r), *makers)
        for name, (loss, *makers) in FLOAT_LOSSES.items()
        for mode in REDUCTION_MODES
    },
)

family(
    "margins",
    {
        "multi": (
            lambda x, y, w: F.multi_margin_loss(x, y, weight=w, p=2),
            t(4, 5),
            ints(5, 4),
            constant(unit(5)),
        ),
        "multi of one": (
            lambda x, y, w: F.multi_margin_loss(x, y, weight=w, margin=0.5),
            t(5),
            ints(5),
            constant(unit(5)),
        ),
        "multi without reduction": (
            lambda x, y, w: F.multi_margin_loss(x, y, weight=w, reduction="none"),
            t(4, 5),
            ints(5, 4),
            constant(unit(5)),
        ),
        "multilabel of a number": (F.multilabel_margin_loss, t(), ints(1)),
        "smoothed, none": (
            lambda x, y, w: F.cross_entropy(x, y, w, label_smoothing=0.1, reduction="none"),
            t(4, 3, 2),
            ints(3, 4, 2),
            constant(unit(3)),
        ),
        "smoothed, some ignored": (
            lambda x, y, w: F.cross_entropy(x, y, w, label_smoothing=0.2, ignore_index=1),
            t(4, 3),
            ints(3, 4),
            constant(unit(3)),
        ),
        "smoothed, some ignored, without weights": (
            lambda x, y: F.cross_entropy(x, y, label_smoothing=0.2, ignore_index=1),
            t(6, 3),
            ints(3, 6),
        ),
    },
)
