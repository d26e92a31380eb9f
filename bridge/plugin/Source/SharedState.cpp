#include "SharedState.h"

#include <tuple>

namespace stemprover
{

bool SharedState::pushSettings (int64_t position, const Settings& settings)
{
    const auto index = pushed.load (std::memory_order_relaxed);
    if (index - popped.load (std::memory_order_acquire) == queueSize)
        return false;
    queue[index % queueSize] = { position, settings };
    pushed.store (index + 1, std::memory_order_release);
    return true;
}

bool SharedState::peekSettings (int64_t& position, Settings& settings) const
{
    const auto index = popped.load (std::memory_order_relaxed);
    if (index == pushed.load (std::memory_order_acquire))
        return false;
    std::tie (position, settings) = queue[index % queueSize];
    return true;
}

} // namespace stemprover
