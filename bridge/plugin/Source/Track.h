#pragma once

#include <cstdint>
#include <vector>

namespace stemprover
{

/** Sound by its position in the stream: sample p lies at p modulo the capacity, so that no index is shared between the
    thread that writes and the one that reads; which positions hold is agreed upon elsewhere. */
class Track
{
public:
    void prepare (int channelCount, int64_t atLeast)
    {
        size = 1;
        while (size < atLeast)
            size *= 2;
        samples.assign ((size_t) channelCount, std::vector<float> ((size_t) size, 0.0f));
    }

    int channels() const { return (int) samples.size(); }
    int64_t capacity() const { return size; }

    float& at (int channel, int64_t position) { return samples[(size_t) channel][(size_t) (position & (size - 1))]; }
    float at (int channel, int64_t position) const { return samples[(size_t) channel][(size_t) (position & (size - 1))]; }

private:
    int64_t size = 0;
    std::vector<std::vector<float>> samples;
};

} // namespace stemprover
