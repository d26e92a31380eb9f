"""Numbers that several packages share; imports nothing, so the command line can start with it."""

#: Sample rate of the model in Hz.
MODEL_RATE = 44100
#: Largest weight of an adapter in a blend.
MAX_WEIGHT = 1.5
#: Samples of a block in which whole stems are analysed and repaired.
BLOCK_SAMPLES = 1 << 16
