#pragma once

#include "BridgeClient.h"
#include "LateMixDetector.h"
#include "SharedState.h"

#include <functional>
#include <optional>

namespace stemprover
{

/** The bridge's stream in terms of the shared positions: which samples to send next, where returned samples belong, and from
    where each setting holds. For the worker only. */
class Stream
{
public:
    /** nameOf: the preset's name in a slot. */
    Stream (SharedState&, BridgeClient&, std::function<juce::String (int slot)> nameOf);

    /** Asks the bridge for a stream in the host's current format. */
    void request();
    /** Call when the bridge has opened the stream. Decides from which position audio is sent. */
    void begin()
    {
        sentSettings.reset();
        begin (false);
    }

    /** The host's format is no longer the one requested. */
    bool isOutdated() const;
    /** The stream was opened without the mix, which is no longer silent, or with a mix that is only silence. */
    bool needsOtherInputs() const;
    /** The host has restarted since `begin`. followHost returns false while there is too little audio to begin again. */
    bool hostHasRestarted() const { return runStart != x.start.load (std::memory_order_acquire); }
    bool followHost();

    /** Sends up to one block. False if there is nothing to send or the bridge is busy. May lose the connection. */
    bool send();

    enum class Result
    {
        nothingNew,
        moreWet, // wetEnd has moved on
        gap      // audio before the block is missing
    };
    Result accept (const BridgeClient::Block&);
    /** False for a block of the lead-in, which is only sent to give the model its context. */
    bool isAfterLeadIn (const BridgeClient::Block& block) const { return block.position - client.latency() >= firstWet; }

    /** The host sends the mix too late to the side-chain. */
    bool mixIsLate() const { return lateMix.isLate(); }

    /** Samples that must be received before anything is sent: hosts that only try out a plug-in send fewer. */
    static constexpr int64_t minimumInput = 4096;

private:
    bool wantsMix() const;
    void begin (bool again);
    void restart();
    void sendSettings();
    void sendPreset (const Settings&);
    int64_t nextCount (int64_t received) const;
    void checkMix (int64_t received, int64_t count);

    SharedState& x;
    BridgeClient& client;
    const std::function<juce::String (int)> nameOf;

    int64_t capacity = 0;                      // of the input buffer when the stream was requested
    int64_t requestedAt = 0;                   // SharedState::received at that time
    int64_t runStart = SharedState::nowhere;   // SharedState::start of the run that is being sent
    int64_t sent = 0, answered = 0;            // end positions
    int64_t firstWet = 0;                      // returned audio is used from here
    bool crossfades = false;                   // an earlier stream's audio precedes firstWet
    bool discontinuity = false;
    LateMixDetector lateMix;
    std::optional<Settings> sentSettings, wantedSettings;
    double settingsSentAt = 0.0;
};

} // namespace stemprover
