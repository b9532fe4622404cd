// LINK: train
// LABELS: parity
// The learning rate against nanoVLM's get_lr, in float64.
#include "support/reference.h"
#include "train/schedule.h"

#include <math.h>

static void test_reference(void **state) {
    (void)state;
    json_t *all = reference_json("train/lr_schedule.json"), *schedule;
    size_t i, k, compared = 0;
    json_array_foreach(all, i, schedule) {
        const double max_lr = json_number_value(json_object_get(schedule, "max_lr"));
        const uint64_t max_steps = (uint64_t)json_integer_value(json_object_get(schedule, "max_steps"));
        json_t *its = json_object_get(schedule, "it"), *it;
        json_array_foreach(its, k, it) {
            const double ref = json_number_value(json_array_get(json_object_get(schedule, "lr"), k));
            const double lr = schedule_learning_rate((uint64_t)json_integer_value(it), max_lr, max_steps);
            expect_within("learning rate, relative", fabs(lr / ref - 1), 1e-15,
                          "max_lr %g, %llu steps, step %lld", max_lr, (unsigned long long)max_steps,
                          (long long)json_integer_value(it));
            compared++;
        }
    }
    printf("%zu learning rates of %zu schedules compared\n", compared, json_array_size(all));
    assert_true(compared > 0);
    json_decref(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}
