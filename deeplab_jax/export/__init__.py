"""Networks as files: programs and formats. Called, `deeplab_jax.export(model, "onnx", "model.onnx")` writes one.

See `deeplab_jax.apps.library.export`.
"""
