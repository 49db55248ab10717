"""Where TensorFlow computes, and how exactly."""

import tensorflow as tf


def choose(device: str) -> None:
    """Let TensorFlow use `device` alone, "cpu" or "cuda"; called by every model before anything is computed.

    TF32 is off: it would round the inputs of a GPU's products to 10 bits. With deterministic kernels a GPU
    gives the same bytes for the same batch, too.

    Raises:
        RuntimeError: there is no GPU that this TensorFlow can use.
    """
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    elif not tf.config.get_visible_devices("GPU"):
        raise RuntimeError("TensorFlow finds no GPU; run with `devices: cpu`, or look what `consort doctor` says")
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.config.experimental.enable_op_determinism()


def probe() -> None:
    """Multiply and convolve on the GPU, and read the numbers back: a driver may show a GPU that TensorFlow cannot use.

    Raises:
        RuntimeError: it cannot, or computes something else; what TensorFlow raises itself is of other types, too.
    """
    choose("cuda")
    with tf.device("/GPU:0"):
        ones = tf.ones((1, 32, 32))
        found = tf.nn.conv1d(ones @ ones, tf.ones((1, 32, 1)), 1, "VALID").numpy()
    if not (found == 1024).all():
        raise RuntimeError(f"the GPU computes wrongly: {found.flatten()[:4].tolist()} should be 1024")
