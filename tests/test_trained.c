// LINK: train ops_cpu config
// What is trained: the layers that the targets of adapters name, and the parameters that patterns freeze.
#include "support/golden.h"
#include "support/lora_case.h"

#include <stdlib.h>
#include <string.h>

static size_t count_adapters(const LoraCase *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->model.params.count; i++) n += c->model.params.items[i].lora_a != NULL;
    return n;
}

static void targets_are_pefts(void **state) {
    (void)state;
    const struct {
        const char *text;
        size_t adapters; // 0: the error names `said`
        const char *said;
    } cases[] = {
        {"all-linear", 18, NULL},
        {"q_proj,v_proj", 4, NULL},
        {" q_proj , qkv_proj ", 3, NULL},
        {"o_proj", 2, NULL}, // transformers' name
        {"out_proj", 3, NULL},
        {"self_attn.k_proj", 2, NULL},
        {"decoder.blocks.1.mlp.up_proj", 1, NULL},
        {".*blocks\\.1\\.attn\\.(q|k)_proj", 2, NULL},
        {"decoder\\..*", 14, NULL},
        {"q_porj", 0, "near is q_proj"},
        {"proj", 0, "no linear layer"},
        {"head", 0, "no linear layer"},
        {"norm1", 0, "no linear layer"},
        {"q_proj,", 2, NULL},
        {",", 0, "names no layer"},
        {"q_proj.*", 0, "matches no whole name"},
        {"(q_proj", 0, "no POSIX regular expression"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        LoraCase c;
        Error err = {""};
        const bool ok = lora_try_open(&c, &(LoraKind){.rank = 2, .targets = cases[i].text}, &err);
        if (ok != (cases[i].adapters > 0)) fail_msg("%s: %s", cases[i].text, err.text);
        if (ok)
            assert_int_equal(count_adapters(&c), cases[i].adapters);
        else if (!strstr(err.text, cases[i].said) || !strstr(err.text, "--lora_targets"))
            fail_msg("%s: %s", cases[i].text, err.text);
        lora_close(&c);
    }
}

static void patterns_freeze(void **state) {
    (void)state;
    const struct {
        const char *freeze, *train_only, *frozen, *trained, *said;
    } cases[] = {
        {"decoder.blocks.0.*", NULL, "decoder.blocks.0.attn.q_proj.weight",
         "decoder.blocks.1.attn.q_proj.weight", NULL},
        {"vision_encoder.*,MP.*", NULL, "MP.proj.weight", "decoder.norm.weight", NULL},
        {"*fc1.*, decoder.norm.weight", NULL, "decoder.norm.weight", "vision_encoder.blocks.0.mlp.fc2.bias",
         NULL},
        {"decoder.head.weight", NULL, "decoder.token_embedding.weight", "MP.proj.weight", NULL}, // tied
        {"vision_encoder.patch_embedding.*", NULL, "vision_encoder.patch_embedding.conv.bias",
         "vision_encoder.blocks.0.ln1.bias", NULL},
        {NULL, "*attn*", "MP.proj.weight", "decoder.blocks.0.attn.k_proj.weight", NULL},
        {"*blocks.0*", "*attn*", "vision_encoder.blocks.0.attn.qkv_proj.bias",
         "decoder.blocks.1.attn.k_proj.weight", NULL},
        {"decoder.nrom.*", NULL, NULL, NULL, "near is decoder.norm"},
        {NULL, "MP", NULL, NULL, "--train_only: no parameter matches MP"},
        {"*.bias", NULL, NULL, NULL, "conv.bias is frozen and vision_encoder.patch_embedding.conv.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        LoraCase c;
        Error err = {""};
        const bool ok = lora_try_open(
            &c, &(LoraKind){.freeze = cases[i].freeze, .train_only = cases[i].train_only}, &err);
        if (ok != !cases[i].said || (!ok && !strstr(err.text, cases[i].said)))
            fail_msg("%zu: %s", i, err.text);
        if (ok) {
            assert_false(tensor_exists(params_find(&c.model.params, cases[i].frozen)->d));
            assert_true(tensor_exists(params_find(&c.model.params, cases[i].trained)->d));
            lora_loss(&c, 1.0f);
            vlm_backward(&c.model);
        }
        lora_close(&c);
    }
}

// What is not frozen gets the gradients it would get without.
static void freezing_changes_no_other_gradient(void **state) {
    (void)state;
    LoraCase all, some;
    lora_open(&all, &(LoraKind){0});
    lora_open(&some, &(LoraKind){.guard = true,
                                 .freeze = "decoder.blocks.0.mlp.*,*ln2.*,*patch_embedding.*,*head*"});
    lora_loss(&all, 1.0f), lora_loss(&some, 1.0f);
    vlm_backward(&all.model), vlm_backward(&some.model);
    size_t frozen = 0;
    for (size_t i = 0; i < all.model.params.count; i++) {
        const Param *p = &all.model.params.items[i], *q = &some.model.params.items[i];
        if (!q->trained) {
            frozen += p->trained;
            assert_int_equal(q->d.ndim, 0);
            continue;
        }
        float *x = lora_values(&all, p->d), *y = lora_values(&some, q->d);
        assert_memory_equal(x, y, tensor_bytes(p->d));
        free(x);
        free(y);
    }
    assert_int_equal(frozen, 3 + 2 + 3 + 1);
    lora_close(&all);
    lora_close(&some);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_are_pefts),
        cmocka_unit_test(patterns_freeze),
        cmocka_unit_test(freezing_changes_no_other_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
