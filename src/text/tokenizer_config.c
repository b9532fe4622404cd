#include "base/file.h"
#include "text/tokenizer_parts.h"

#define END_OF_TURN "<|im_end|>"

bool tokenizer_read_json(json_t **json, const char *path, Error *err) {
    char *bytes;
    size_t size;
    json_error_t where;
    if (!file_read(&bytes, &size, path, err)) return false;
    *json = json_loadb(bytes, size, JSON_ALLOW_NUL, &where);
    free(bytes);
    if (!*json) return error_set(err, "%s: line %d: %s", path, where.line, where.text);
    return json_is_object(*json) || error_set(err, "%s: expected a JSON object", path);
}

// The field eos_token (a string or {"content": string}); without it, <|im_end|>.
static bool find_eos(Tokenizer *t, const json_t *config, Error *err) {
    const json_t *field = json_object_get(config, "eos_token");
    const char *text = json_string_value(json_is_object(field) ? json_object_get(field, "content") : field);
    t->eos_id = tokenizer_token_id(t, text ? text : END_OF_TURN);
    if (t->eos_id >= 0) return true;
    if (text) return error_set(err, "field eos_token is \"%s\", expected a token of tokenizer.json", text);
    return error_set(err, "field eos_token is missing, and tokenizer.json has no " END_OF_TURN);
}

// The field chat_template: a text, or a list of {"name", "template"} of which the one named default counts.
static bool find_template(Tokenizer *t, const json_t *config, Error *err) {
    const json_t *field = json_object_get(config, "chat_template"), *named;
    const char *text = json_string_value(field);
    size_t i;
    json_array_foreach(field, i, named) {
        const char *name = json_string_value(json_object_get(named, "name"));
        if (name && strcmp(name, "default") == 0)
            text = json_string_value(json_object_get(named, "template"));
    }
    if (text) t->chat_template = mem_strdup(text);
    return text || !field || json_is_null(field) || json_is_array(field) ||
           error_set(err, "field chat_template: expected a text or a list of named ones");
}

// chat_template.jinja goes before the field.
static bool read_template_file(Tokenizer *t, const char *folder, Error *err) {
    char *path = path_join(folder, "chat_template.jinja");
    size_t size;
    const bool ok = !file_exists(path) || file_read(&t->chat_template, &size, path, err);
    free(path);
    return ok;
}

bool tokenizer_load_config(Tokenizer *t, const char *folder, Error *err) {
    char *path = path_join(folder, "tokenizer_config.json");
    json_t *config = NULL;
    bool ok =
        (!file_exists(path) || tokenizer_read_json(&config, path, err)) && read_template_file(t, folder, err);
    if (ok) {
        t->clean_up_spaces = json_is_true(json_object_get(config, "clean_up_tokenization_spaces"));
        ok = (find_eos(t, config, err) && (t->chat_template || find_template(t, config, err))) ||
             error_prefix(err, "%s", path);
    }
    json_decref(config);
    free(path);
    return ok;
}
