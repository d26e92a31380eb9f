"""Signal processing on arrays: STFT, resampling, latents, filters and queues, all as streams."""
