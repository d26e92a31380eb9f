#pragma once

#include <cstdint>
#include <vector>

namespace stemprover
{

/** Audio addressed by its position in the stream: sample p is stored at p modulo the capacity. The writing and the reading
    thread share no index; SharedState holds the positions that are valid. */
class RingBuffer
{
public:
    /** The capacity becomes the next power of two. */
    void prepare (int channelCount, int64_t minimumCapacity)
    {
        size = 1;
        while (size < minimumCapacity)
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
