// LINK: synth
// The synthetic data set: what the pictures show and what the questions ask.
#include "base/vec.h"
#include "image/image.h"
#include "support/golden.h"
#include "support/oracle.h"
#include "support/synth_case.h"
#include "synth/kinds.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- scenes and questions ----
// Every kind alone and all together, in few and in many shapes.
static void test_answers_are_true(void **state) {
    (void)state;
    size_t questions = 0;
    for (const SynthKind *kind = synth_kinds; kind->name; kind++)
        for (size_t setting = 0; setting < 3; setting++) {
            const char *const shapes[] = {"4", "9", "2"}, *const colours[] = {"8", "10", "2"};
            SynthOptions o = OPTIONS("kinds", kind->name, "max_shapes", shapes[setting], "colours",
                                     colours[setting], "shapes", colours[setting], "turns", "8");
            for (uint64_t i = 0; i < 400; i++) {
                SynthRow row = row_of(&o, SYNTH_TRAIN, i);
                assert_in_range(row.n_turns, 1, 8);
                for (size_t t = 0; t < row.n_turns; t++, questions++) {
                    char truth[16];
                    if (!oracle_answer(truth, &row, row.turns[t].user))
                        fail_msg("'%s' has no single answer in its picture", row.turns[t].user);
                    if (strcmp(truth, row.turns[t].assistant))
                        fail_msg("'%s' is answered '%s', but it is '%s'", row.turns[t].user,
                                 row.turns[t].assistant, truth);
                }
            }
            fields_free(options_set(&o));
        }
    assert_true(questions > 20000);
}

static void test_turns_differ(void **state) {
    (void)state;
    SynthOptions o = OPTIONS("turns", "6");
    size_t turns = 0, low = 0;
    for (uint64_t i = 0; i < 3000; i++) {
        SynthRow row = row_of(&o, SYNTH_TRAIN, i);
        for (size_t a = 0; a < row.n_turns; a++, turns++) {
            for (size_t b = 0; b < a; b++)
                assert_string_not_equal(row.turns[a].subject, row.turns[b].subject);
            for (size_t r = 0; r < SYNTH_RATINGS; r++) {
                assert_in_range(row.turns[a].ratings[r], 1, 5);
                low += row.turns[a].ratings[r] < 4;
            }
        }
    }
    assert_in_range(turns, 3000 * 3, 3000 * 6);
    assert_in_range(low, turns / 13, turns / 8);
    fields_free(options_set(&o));
}

// ---- pictures ----
typedef struct Blob {
    double x, y, colour[3];
    size_t area;
} Blob;

// Connected regions that stand out from the corner's colour; cores only, so that soft edges do not blur the
// colour.
static size_t find_blobs(Blob *blobs, size_t most, const uint8_t *rgb, size_t size) {
    size_t count = 0, *stack = mem_alloc(size * size * sizeof *stack);
    uint8_t *seen = mem_zeroed(size * size, 1);
    for (size_t start = 0; start < size * size; start++) {
        Blob blob = {0};
        size_t depth = 0;
        if (!seen[start]) seen[start] = 1, stack[depth++] = start;
        while (depth) {
            size_t at = stack[--depth], x = at % size, y = at / size;
            int contrast = 0;
            for (size_t c = 0; c < 3; c++) contrast += abs(rgb[3 * at + c] - rgb[c]);
            if (contrast < 90) continue;
            blob.area++, blob.x += (double)x, blob.y += (double)y;
            for (size_t c = 0; c < 3; c++) blob.colour[c] += rgb[3 * at + c] / 255.0;
            const size_t near[] = {x ? at - 1 : at, x + 1 < size ? at + 1 : at, y ? at - size : at,
                                   y + 1 < size ? at + size : at};
            for (size_t k = 0; k < 4; k++)
                if (!seen[near[k]]) seen[near[k]] = 1, stack[depth++] = near[k];
        }
        if (blob.area < 12 || count == most) continue;
        double n = (double)blob.area;
        blobs[count++] = (Blob){
            blob.x / n, blob.y / n, {blob.colour[0] / n, blob.colour[1] / n, blob.colour[2] / n}, blob.area};
    }
    free(stack);
    free(seen);
    return count;
}

static unsigned nearest_colour(const double rgb[3]) {
    unsigned best = 0;
    double least = INFINITY;
    for (unsigned i = 0; i < SCENE_COLOURS; i++) {
        double distance = 0;
        for (size_t c = 0; c < 3; c++) distance += pow(rgb[c] - scene_colours[i].rgb[c], 2);
        if (distance < least) least = distance, best = i;
    }
    return best;
}

// Seen in the pixels alone: as many regions as shapes, each where its shape is, of its colour and about its
// size.
static void test_pixels_show_the_scene(void **state) {
    (void)state;
    SynthOptions o =
        OPTIONS("kinds", "count,size,position,exists", "max_shapes", "9", "shapes", "10", "colours", "10");
    const size_t size = 160;
    for (uint64_t i = 0; i < 300; i++) {
        SynthRow row = row_of(&o, i % 2 ? SYNTH_TEST : SYNTH_TRAIN, i);
        const Scene *p = &row.pictures[0];
        Blob blobs[16];
        uint8_t *rgb;
        Error err;
        if (!scene_draw(&rgb, p, size, &err)) fail_msg("%s", err.text);
        assert_int_equal(find_blobs(blobs, 16, rgb, size), p->n_objects);
        for (size_t k = 0; k < p->n_objects; k++) {
            const Object *object = &p->objects[k];
            size_t near = 0;
            for (size_t b = 0; b < p->n_objects; b++) {
                double distance =
                    hypot(blobs[b].x / (double)size - object->x, blobs[b].y / (double)size - object->y);
                if (distance > 0.5 * object->radius) continue;
                double share = (double)blobs[b].area / pow(2 * object->radius * (double)size, 2);
                near++;
                assert_int_equal(nearest_colour(blobs[b].colour), object->colour);
                assert_true(share > 0.2 && share < 0.85);
            }
            assert_int_equal(near, 1);
        }
        free(rgb);
    }
    fields_free(options_set(&o));
}

// The mask of a lone shape at a fixed place, to tell kinds of shapes apart by their pixels.
static void shape_mask(uint8_t *mask, size_t size, unsigned shape) {
    Scene p = {.genre = GENRE_SHAPES,
               .n_objects = 1,
               .objects = {{.shape = shape, .x = 0.5, .y = 0.5, .radius = 0.4}}};
    uint8_t *rgb;
    assert_true(scene_draw(&rgb, &p, size, NULL));
    for (size_t i = 0; i < size * size; i++) mask[i] = rgb[3 * i] > 60;
    free(rgb);
}

static void test_shapes_are_distinct(void **state) {
    (void)state;
    enum { SIZE = 32 };
    uint8_t masks[SCENE_SHAPES][SIZE * SIZE];
    for (unsigned a = 0; a < SCENE_SHAPES; a++) {
        shape_mask(masks[a], SIZE, a);
        for (unsigned b = 0; b < a; b++) {
            size_t different = 0;
            for (size_t i = 0; i < SIZE * SIZE; i++) different += masks[a][i] != masks[b][i];
            if (different < 50)
                fail_msg("%s and %s differ in %zu pixels", scene_shapes[a].name, scene_shapes[b].name,
                         different);
        }
    }
}

static size_t ink(const Scene *p, size_t size) {
    uint8_t *rgb;
    size_t count = 0;
    assert_true(scene_draw(&rgb, p, size, NULL));
    for (size_t i = 0; i < size * size; i++) {
        int contrast = 0;
        for (size_t c = 0; c < 3; c++) contrast += abs(rgb[3 * i + c] - rgb[c]);
        count += contrast >= 90;
    }
    free(rgb);
    return count;
}

// Text is there, inside the picture, in its colour; a higher bar has more ink.
static void test_text_and_bars(void **state) {
    (void)state;
    SynthOptions o = OPTIONS("kinds", "word,digits");
    for (uint64_t i = 0; i < 200; i++) {
        SynthRow row = row_of(&o, SYNTH_TRAIN, i);
        const Scene *p = &row.pictures[0];
        uint8_t *rgb;
        assert_true(strlen(p->text) > 0);
        assert_in_range(ink(p, 64), 64 * 64 / 25, 64 * 64 / 2);
        assert_true(scene_draw(&rgb, p, 64, NULL));
        for (size_t y = 0; y < 64; y++)
            for (size_t k = 0; k < 3; k++) assert_int_equal(rgb[3 * 64 * y + k], rgb[k]); // nothing cut off
        free(rgb);
    }
    fields_free(options_set(&o));
    Scene chart = {.genre = GENRE_CHART, .n_objects = 1};
    size_t last = 0;
    for (unsigned value = 1; value <= CHART_MAX_VALUE; value++) {
        chart.objects[0].value = value;
        size_t now = ink(&chart, 64);
        assert_true(now > last);
        last = now;
    }
}

static void test_formats_decode(void **state) {
    (void)state;
    SynthOptions o = OPTIONS("image_size", "96");
    for (size_t jpeg = 0; jpeg < 2; jpeg++)
        for (uint64_t i = 0; i < 20; i++) {
            SynthRow row = row_of(&o, SYNTH_TRAIN, i);
            unsigned char *bytes;
            uint8_t *rgb;
            size_t size, difference = 0;
            Image image;
            Error err;
            if (!scene_encode(&bytes, &size, &row.pictures[0], 96, jpeg ? "jpeg" : "png", &err) ||
                !image_decode(&image, bytes, size, true, &err))
                fail_msg("%s", err.text);
            assert_int_equal(image.width, 96);
            assert_int_equal(image.height, 96);
            assert_true(scene_draw(&rgb, &row.pictures[0], 96, NULL));
            for (size_t k = 0; k < 3 * 96 * 96; k++) difference += (size_t)abs(rgb[k] - image.rgb[k]);
            if (jpeg)
                assert_in_range(difference, 1, 3 * 3 * 96 * 96); // a few levels a value
            else
                assert_int_equal(difference, 0);
            image_free(&image);
            free(bytes);
            free(rgb);
        }
    fields_free(options_set(&o));
}

// ---- balance ----
enum { MAX_ANSWERS = 200 };
typedef struct Tally {
    const char *form; // the question without its own colours and shapes
    size_t total, n;
    char answers[MAX_ANSWERS][16];
    size_t counts[MAX_ANSWERS];
} Tally;

static void tally_add(Tally *t, const char *answer) {
    size_t i = 0;
    while (i < t->n && strcmp(t->answers[i], answer)) i++;
    assert_true(i < MAX_ANSWERS);
    if (i == t->n) snprintf(t->answers[t->n++], sizeof t->answers[0], "%s", answer);
    t->counts[i]++;
    t->total++;
}

static double tally_commonest(const Tally *t) {
    size_t most = 0;
    for (size_t i = 0; i < t->n; i++) most = t->counts[i] > most ? t->counts[i] : most;
    return (double)most / (double)t->total;
}

// No form of question can be answered by its commonest answer much more often than a fair draw would.
static void test_answers_are_balanced(void **state) {
    (void)state;
    SynthOptions o = OPTIONS("turns", "3");
    VEC(Tally) tallies = {0};
    size_t wide = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        SynthRow row = row_of(&o, SYNTH_TRAIN, i);
        for (size_t t = 0; t < row.n_turns; t++) {
            const char *form = oracle_form(row.turns[t].user);
            size_t k = 0;
            while (k < tallies.count && strcmp(tallies.items[k].form, form)) k++;
            if (k == tallies.count) vec_push(&tallies, (Tally){.form = form});
            tally_add(&tallies.items[k], row.turns[t].assistant);
        }
    }
    for (size_t k = 0; k < tallies.count; k++) {
        const Tally *t = &tallies.items[k];
        double share = tally_commonest(t), fair = 1.0 / (double)t->n;
        printf("%-36s %6zu asked, %3zu answers, the commonest %4.1f%%\n", t->form, t->total, t->n,
               100 * share);
        assert_true(t->total > 40 && t->n >= 2);
        assert_true(t->n > 3 ? share < 0.40 : share < fair + 2 / sqrt((double)t->total));
        wide += share < 0.40;
    }
    assert_true(tallies.count > 30 && 2 * wide > tallies.count);
    vec_free(&tallies);
    fields_free(options_set(&o));
}

typedef struct Asked {
    char question[96], answer[16];
} Asked;

static int compare_asked(const void *a, const void *b) {
    return memcmp(a, b, sizeof(Asked));
}

// The best guess for each question to the letter, learnt from the answers themselves: what a model without
// eyes could reach at most. Rare questions are left out, because their commonest answer is mostly chance.
static void test_words_do_not_tell(void **state) {
    (void)state;
    SynthOptions o = OPTIONS("turns", "3");
    VEC(Asked) all = {0};
    for (uint64_t i = 0; i < 30000; i++) {
        SynthRow row = row_of(&o, SYNTH_TRAIN, i);
        for (size_t t = 0; t < row.n_turns; t++) {
            Asked asked = {0};
            snprintf(asked.question, sizeof asked.question, "%s", row.turns[t].user);
            snprintf(asked.answer, sizeof asked.answer, "%s", row.turns[t].assistant);
            vec_push(&all, asked);
        }
    }
    qsort(all.items, all.count, sizeof *all.items, compare_asked);
    size_t guessed = 0, asked = 0, end;
    for (size_t i = 0; i < all.count; i = end) {
        size_t commonest = 0, answers = 0, run = 0;
        for (end = i; end < all.count && !strcmp(all.items[end].question, all.items[i].question); end++) {
            run = end > i && !strcmp(all.items[end].answer, all.items[end - 1].answer) ? run + 1 : 1;
            answers += run == 1;
            commonest = run > commonest ? run : commonest;
        }
        if (end - i < 200) continue;
        asked += end - i;
        guessed += commonest;
        if (answers > 3 && 5 * commonest > 2 * (end - i))
            fail_msg("'%s' is answered alike in %zu of %zu cases", all.items[i].question, commonest, end - i);
    }
    double share = (double)guessed / (double)asked;
    printf("%zu questions asked often: %.1f%% guessed from their words\n", asked, 100 * share);
    assert_true(asked > 20000 && share < 0.33);
    vec_free(&all);
    fields_free(options_set(&o));
}

// ---- splits and seeds ----
static void test_splits_are_apart(void **state) {
    (void)state;
    SynthOptions o = OPTIONS("max_shapes", "1", "colours", "2", "shapes", "2", "kinds", "colour");
    VEC(uint64_t) seen[2] = {{0}, {0}};
    for (uint64_t i = 0; i < 3000; i++)
        for (SynthSplit split = SYNTH_TRAIN; split <= SYNTH_TEST; split++) {
            SynthRow row = row_of(&o, split, i);
            for (size_t k = 0; k < row.n_pictures; k++)
                vec_push(&seen[split], scene_signature(&row.pictures[k]));
        }
    size_t repeated = 0;
    for (size_t i = 0; i < seen[0].count; i++) {
        for (size_t j = 0; j < seen[1].count; j++) assert_true(seen[0].items[i] != seen[1].items[j]);
        for (size_t j = 0; j < i; j++) repeated += seen[0].items[i] == seen[0].items[j];
    }
    assert_true(repeated > 0); // the signature is coarse enough to see that pictures come again
    vec_free(&seen[0]);
    vec_free(&seen[1]);
    fields_free(options_set(&o));
}

// The signature sees what is shown and about where: tint, shade and the order of drawing do not count.
static void test_signature(void **state) {
    (void)state;
    SynthOptions o = OPTIONS("kinds", "count");
    SynthRow row = row_of(&o, SYNTH_TRAIN, 3);
    Scene p = row.pictures[0];
    uint64_t signature = scene_signature(&p);
    p.background[0] += p.background[0] > 0.5 ? -0.02 : 0.02, p.tint[1] = 0.01;
    if (p.n_objects > 1) { // nor does the order of drawing
        Object swap = p.objects[0];
        p.objects[0] = p.objects[1], p.objects[1] = swap;
    }
    assert_true(scene_signature(&p) == signature);
    p.objects[0].x += 0.051;
    assert_true(scene_signature(&p) != signature);
    p.objects[0].x -= 0.051;
    p.objects[0].colour ^= 1;
    assert_true(scene_signature(&p) != signature);
    fields_free(options_set(&o));
}

static void test_seed_decides(void **state) {
    (void)state;
    SynthOptions a = OPTIONS("seed", "1"), b = OPTIONS("seed", "2");
    size_t same = 0;
    for (uint64_t i = 0; i < 200; i++) {
        SynthRow first = row_of(&a, SYNTH_TRAIN, i), again = row_of(&a, SYNTH_TRAIN, i),
                 other = row_of(&b, SYNTH_TRAIN, i);
        SynthRow test = row_of(&a, SYNTH_TEST, i);
        assert_memory_equal(&first, &again, sizeof first);
        same += !memcmp(&first, &other, sizeof first) + !memcmp(&first, &test, sizeof first);
    }
    assert_int_equal(same, 0);
    fields_free(options_set(&a));
    fields_free(options_set(&b));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_true),      cmocka_unit_test(test_turns_differ),
        cmocka_unit_test(test_pixels_show_the_scene), cmocka_unit_test(test_shapes_are_distinct),
        cmocka_unit_test(test_text_and_bars),         cmocka_unit_test(test_formats_decode),
        cmocka_unit_test(test_answers_are_balanced),  cmocka_unit_test(test_words_do_not_tell),
        cmocka_unit_test(test_splits_are_apart),      cmocka_unit_test(test_signature),
        cmocka_unit_test(test_seed_decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
