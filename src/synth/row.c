// One row of the set: pictures of the right split, and questions about them.
#include "synth/kinds.h"
#include "base/check.h"

#include <string.h>

enum { TEST_SHARE = 8 };     // one signature in so many belongs to the test split
enum { MAX_SCENES = 20000 }; // drawn for one row before giving up
enum { ASK_ATTEMPTS = 12 };  // for one turn

static SynthSplit split_of(const Scene *p) {
    return scene_signature(p) % TEST_SHARE == 0 ? SYNTH_TEST : SYNTH_TRAIN;
}

static bool in_split(const SynthRow *row, SynthSplit split) {
    for (size_t i = 0; i < row->n_pictures; i++)
        if (split_of(&row->pictures[i]) != split) return false;
    return true;
}

// Mostly 4 and 5; one turn in ten has one low rating, so that --*_min_rating has something to leave out.
static void rate(SynthTurn *turn, Random *random) {
    for (size_t i = 0; i < SYNTH_RATINGS; i++) turn->ratings[i] = 4 + (int)random_below(random, 2);
    if (random_below(random, 10) == 0)
        turn->ratings[random_below(random, SYNTH_RATINGS)] = 1 + (int)random_below(random, 3);
}

static bool is_colour_or_shape(const char *word) {
    for (size_t i = 0; i < SCENE_COLOURS; i++)
        if (!strcmp(word, scene_colours[i].name)) return true;
    for (size_t i = 0; i < SCENE_SHAPES; i++)
        if (!strcmp(word, scene_shapes[i].name)) return true;
    return false;
}

// A further turn must not be answered by an earlier one: nothing asked twice, no colour or shape that was
// named before.
static bool is_new(const SynthRow *row, const SynthTurn *turn) {
    bool name = is_colour_or_shape(turn->assistant);
    for (size_t i = 0; i < row->n_turns; i++) {
        const SynthTurn *earlier = &row->turns[i];
        if (!strcmp(earlier->subject, turn->subject)) return false;
        if (name && (strstr(earlier->user, turn->assistant) || !strcmp(earlier->assistant, turn->assistant)))
            return false;
    }
    return true;
}

static const SynthKind *random_kind(Draft *d) {
    const StringList *names = &d->options->kinds;
    const SynthKind *kind = synth_kind_find(names->items[random_below(&d->random, names->count)]);
    CHECK(kind, "synth_options_check let an unknown kind pass");
    return kind;
}

static bool add_turn(Draft *d, bool (*ask)(Draft *, SynthTurn *)) {
    SynthTurn turn = {0};
    if (!ask(d, &turn) || !is_new(d->row, &turn)) return false;
    rate(&turn, &d->random);
    d->row->turns[d->row->n_turns++] = turn;
    return true;
}

static bool draw_scene(Draft *d, const SynthKind *kind, SynthSplit split) {
    memset(d->row, 0, sizeof *d->row);
    d->row->n_pictures = 1;
    kind->arrange(d);
    if (!in_split(d->row, split)) return false;
    for (size_t i = 0; i < ASK_ATTEMPTS && d->row->n_turns == 0; i++) add_turn(d, kind->ask);
    return d->row->n_turns > 0;
}

// Further turns, from any of the chosen kinds that fits the pictures; there may be fewer than asked for.
static void add_more_turns(Draft *d, KindGroup group) {
    for (size_t i = 0; i < ASK_ATTEMPTS * d->options->turns && d->row->n_turns < d->options->turns; i++) {
        const SynthKind *kind = random_kind(d);
        if (kind->group == group && kind->ask_more) add_turn(d, kind->ask_more);
    }
}

bool synth_row(SynthRow *row, const SynthOptions *o, SynthSplit split, uint64_t index, Error *err) {
    // Even stream numbers are training rows, odd ones test rows.
    Draft d = {.options = o, .row = row, .random = random_stream(o->seed, RANDOM_SYNTH, 2 * index + split)};
    const SynthKind *kind = random_kind(&d);
    for (size_t i = 0; i < MAX_SCENES; i++) {
        if (!draw_scene(&d, kind, split)) continue;
        add_more_turns(&d, kind->group);
        return true;
    }
    return error_set(
        err,
        "synth: no picture for a %s question of the %s split among %d drawn: the options allow too few "
        "different ones; raise --colours, --shapes or --max_shapes",
        kind->name, split == SYNTH_TEST ? "test" : "train", MAX_SCENES);
}
