"""Training: state, optimiser, step, loop, checkpoints. Called, `deeplab_jax.train(config, workdir)` runs it all.

See `deeplab_jax.apps.library.train`.
"""
