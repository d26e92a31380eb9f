#pragma once

#include "Alignment.h"
#include "BridgeClient.h"
#include "Playback.h"

namespace stemprover
{

/** The bridge's stream as positions of the exchange: what of the sound is sent next, where what comes back belongs, and which
    settings hold from where on. On the worker alone. */
class Stream
{
public:
    /** nameOf: a preset's slot to its name. */
    Stream (Exchange&, BridgeClient&, std::function<juce::String (int slot)> nameOf);

    /** Asks the bridge for a stream of what the host plays now. */
    void ask();
    /** The bridge has opened it: decides from where on sound is sent. */
    void begin()
    {
        toldAny = false;
        begin (false);
    }

    /** What was asked for is not what the host plays now. */
    bool isOutdated() const;
    /** It was opened without the song, which sounds now, or with a song that is none. */
    bool listensWrongly() const;
    /** The host has gone elsewhere; where `catchUp` is false there is too little sound yet to follow it. */
    bool hostHasBegunAnew() const { return begun != x.start.load (std::memory_order_acquire); }
    bool catchUp();

    /** Sends what there is to send, up to a block; false where there is nothing, or the bridge has enough for now. The
        connection may be lost in it. */
    bool send();

    enum class Came
    {
        known,  // nothing that was not there before
        sound,  // the wet sound goes further now
        gap     // there is sound missing before it
    };
    Came take (const BridgeClient::Block&);
    /** A block of sound that counts, not of what the model only hears again. */
    bool counts (const BridgeClient::Block& block) const { return block.position - client.latency() >= accepted; }

    /** The host sends the song too late to the side-chain. */
    bool songIsLate() const { return alignment.songIsLate(); }

    static constexpr int64_t untilFirstWord = 4096; // samples of sound before anybody is spoken to: hosts try a plug-in with less

private:
    bool wantsSong() const;
    void begin (bool anew);
    void restart();
    void tellSettings();
    void tellPreset (const Settings&);
    int64_t nextCount (int64_t heard) const;
    void listenToTheSong (int64_t heard, int64_t count);

    Exchange& x;
    BridgeClient& client;
    const std::function<juce::String (int)> nameOf;

    int64_t capacity = 0;               // of the ring that the stream was asked for with
    int64_t askedAt = 0;                // Exchange::heard at that time
    int64_t begun = Exchange::nowhere;  // Exchange::start of the run that is sent
    int64_t sent = 0, answered = 0;     // positions
    int64_t accepted = 0;               // wet sound counts from here on
    bool seamed = false;                // before it there is sound that another stream has made
    bool discontinuity = false;
    Alignment alignment;
    Settings told, wanted;
    bool toldAny = false, wantedAny = false;
    double lastTold = 0.0;
};

} // namespace stemprover
