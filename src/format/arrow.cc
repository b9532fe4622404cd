// The project's one C++ file: Parquet through Apache Arrow. Arrow's exceptions and statuses end here and
// become an Error; what goes out is Arrow's C data interface, which arrow_columns.c reads.
extern "C" {
#include "base/file.h"
#include "format/arrow.h"
}
#include "format/arrow_batch.h"

#include <arrow/api.h>
#include <arrow/c/bridge.h>
#include <arrow/compute/cast.h>
#include <arrow/io/file.h>
#include <arrow/util/config.h>
#include <parquet/arrow/reader.h>
#include <parquet/arrow/writer.h>
#include <parquet/exception.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

using arrow::Status;

// Runs body, which returns an arrow::Status, and turns whatever goes wrong into "where: message".
template <typename Body> static bool guarded(Error *err, const std::string &where, Body body) {
    std::string message;
    try {
        Status status = body();
        if (status.ok()) return true;
        message = status.message();
    } catch (const std::bad_alloc &) {
        message = "out of memory";
    } catch (const std::exception &e) {
        message = e.what();
    } catch (...) {
        message = "unknown failure";
    }
    for (char &c : message)
        if (c == '\n') c = ' ';
    return error_set(err, "%s: %s", where.c_str(), message.c_str());
}

// ---- reading ----

struct ParquetReader {
    std::string path;
    std::unique_ptr<parquet::arrow::FileReader> file;
    std::shared_ptr<parquet::FileMetaData> footer;
};

// Buffered and without prefetching, so that memory holds the decoded row group and little of the file.
static Status open_file(ParquetReader *r) {
    ARROW_ASSIGN_OR_RAISE(auto source, arrow::io::ReadableFile::Open(r->path));
    parquet::ReaderProperties properties;
    properties.enable_buffered_stream();
    properties.set_buffer_size(1 << 20);
    parquet::ArrowReaderProperties arrow_properties;
    arrow_properties.set_pre_buffer(false);
    parquet::arrow::FileReaderBuilder builder;
    ARROW_RETURN_NOT_OK(builder.Open(source, properties));
    ARROW_ASSIGN_OR_RAISE(r->file, builder.properties(arrow_properties)->Build());
    r->footer = r->file->parquet_reader()->metadata();
    int64_t total = 0;
    for (int i = 0; i < r->footer->num_row_groups(); i++) {
        int64_t rows = r->footer->RowGroup(i)->num_rows();
        if (rows < 0 || __builtin_add_overflow(total, rows, &total))
            return Status::Invalid("row group ", i, " has ", rows,
                                   " rows; the file is damaged: copy it again");
    }
    return Status::OK();
}

bool parquet_open(ParquetReader **out, const char *path, Error *err) {
    *out = nullptr;
    return guarded(err, path, [&] {
        auto r = std::make_unique<ParquetReader>();
        r->path = path;
        ARROW_RETURN_NOT_OK(open_file(r.get()));
        *out = r.release();
        return Status::OK();
    });
}

void parquet_close(ParquetReader *r) {
    delete r;
}

size_t parquet_row_groups(const ParquetReader *r) {
    return (size_t)r->footer->num_row_groups();
}

size_t parquet_rows(const ParquetReader *r, size_t row_group) {
    return (size_t)r->footer->RowGroup((int)row_group)->num_rows();
}

// The leaves of the file that belong to the named columns; nested columns have several.
static std::vector<int> leaves_of(const ParquetReader *r, const char *const *columns, size_t n_columns) {
    std::vector<int> leaves;
    for (int i = 0; i < r->footer->num_columns(); i++) {
        const std::string &root = r->footer->schema()->GetColumnRoot(i)->name();
        bool wanted = !columns;
        for (size_t k = 0; k < n_columns && !wanted; k++) wanted = root == columns[k];
        if (wanted) leaves.push_back(i);
    }
    return leaves;
}

// The type as arrow_columns.c knows it: dictionaries, extensions, views and fixed sizes become their plain
// forms.
static std::shared_ptr<arrow::DataType> plain_type(const std::shared_ptr<arrow::DataType> &type) {
    auto item = [&] { return type->field(0)->WithType(plain_type(type->field(0)->type())); };
    switch (type->id()) {
    case arrow::Type::DICTIONARY:
        return plain_type(static_cast<const arrow::DictionaryType &>(*type).value_type());
    case arrow::Type::EXTENSION:
        return plain_type(static_cast<const arrow::ExtensionType &>(*type).storage_type());
    case arrow::Type::STRING_VIEW:
        return arrow::large_utf8();
    case arrow::Type::BINARY_VIEW:
        return arrow::large_binary();
    case arrow::Type::FIXED_SIZE_BINARY:
        return arrow::binary();
    case arrow::Type::LIST:
    case arrow::Type::FIXED_SIZE_LIST:
    case arrow::Type::LIST_VIEW:
        return arrow::list(item());
    case arrow::Type::LARGE_LIST:
    case arrow::Type::LARGE_LIST_VIEW:
        return arrow::large_list(item());
    case arrow::Type::STRUCT: {
        arrow::FieldVector fields;
        for (const auto &field : type->fields()) fields.push_back(field->WithType(plain_type(field->type())));
        return arrow::struct_(fields);
    }
    default:
        return type;
    }
}

static arrow::Result<std::shared_ptr<arrow::Table>> plain_table(std::shared_ptr<arrow::Table> table) {
    for (int i = 0; i < table->num_columns(); i++) {
        auto field = table->schema()->field(i);
        auto type = plain_type(field->type());
        if (type->Equals(field->type())) continue;
        ARROW_ASSIGN_OR_RAISE(auto cast, arrow::compute::Cast(table->column(i), type));
        ARROW_ASSIGN_OR_RAISE(table, table->SetColumn(i, field->WithType(type), cast.chunked_array()));
    }
    return table;
}

static Status read_group(RecordBatch *out, ParquetReader *r, size_t row_group,
                         const std::vector<int> &leaves) {
    ARROW_ASSIGN_OR_RAISE(auto table, r->file->ReadRowGroup((int)row_group, leaves));
    ARROW_RETURN_NOT_OK(table->ValidateFull()); // the bytes may be hostile; what follows trusts them
    ARROW_ASSIGN_OR_RAISE(table, plain_table(table));
    ARROW_ASSIGN_OR_RAISE(auto batch, table->CombineChunksToBatch());
    if ((size_t)batch->num_rows() != parquet_rows(r, row_group))
        return Status::Invalid("it holds ", batch->num_rows(), " rows, the footer says ",
                               parquet_rows(r, row_group), "; the file is damaged: copy it again");
    return arrow::ExportRecordBatch(*batch, &out->array, &out->schema);
}

bool parquet_read(RecordBatch **out, ParquetReader *r, size_t row_group, const char *const *columns,
                  size_t n_columns, Error *err) {
    *out = nullptr;
    if (row_group >= parquet_row_groups(r))
        return error_set(err, "%s: row group %zu asked for, the file has %zu", r->path.c_str(), row_group,
                         parquet_row_groups(r));
    auto *batch = static_cast<RecordBatch *>(calloc(1, sizeof(RecordBatch)));
    if (!batch) return error_set(err, "%s: out of memory", r->path.c_str());
    bool ok = guarded(err, r->path + ": row group " + std::to_string(row_group),
                      [&] { return read_group(batch, r, row_group, leaves_of(r, columns, n_columns)); });
    if (ok)
        *out = batch;
    else
        record_batch_free(batch);
    return ok;
}

// ---- writing ----

// Arrow's stream over base/file.h, so that Parquet files too appear whole or not at all.
class AtomicFile final : public arrow::io::OutputStream {
  public:
    FileWriter file = {};

    ~AtomicFile() override { file_abandon(&file); }
    Status Write(const void *data, int64_t n) override {
        if (fwrite(data, 1, (size_t)n, file.stream) != (size_t)n)
            return Status::IOError("writing ", n, " bytes failed: ", strerror(errno),
                                   "; free some space or choose another folder");
        written_ += n;
        return Status::OK();
    }
    arrow::Result<int64_t> Tell() const override { return written_; }
    Status Close() override {
        closed_ = true;
        return Status::OK();
    }
    bool closed() const override { return closed_; }

  private:
    int64_t written_ = 0;
    bool closed_ = false;
};

enum { IMAGES, TEXTS, SOURCE, RATINGS }; // columns of the schema; the four ratings begin at RATINGS
static const int64_t FineVisionTurn::*const ratings[] = {
    &FineVisionTurn::relevance, &FineVisionTurn::image_correspondence, &FineVisionTurn::visual_dependency,
    &FineVisionTurn::formatting};

static std::shared_ptr<arrow::Schema> finevision_schema() {
    auto list_of = [](std::shared_ptr<arrow::DataType> type) {
        return arrow::list(arrow::field("element", type));
    };
    auto image =
        arrow::struct_({arrow::field("bytes", arrow::binary()), arrow::field("path", arrow::utf8())});
    auto turn =
        arrow::struct_({arrow::field("user", arrow::utf8()), arrow::field("assistant", arrow::utf8())});
    auto rating = list_of(arrow::int64());
    return arrow::schema({arrow::field("images", list_of(image)), arrow::field("texts", list_of(turn)),
                          arrow::field("source", arrow::utf8()), arrow::field("relevance_ratings", rating),
                          arrow::field("image_correspondence_ratings", rating),
                          arrow::field("visual_dependency_ratings", rating),
                          arrow::field("formatting_ratings", rating)});
}

struct ParquetWriter {
    std::string path;
    size_t rows_per_group = 0, rows = 0; // rows: waiting in the builder
    std::shared_ptr<AtomicFile> sink;
    std::unique_ptr<arrow::RecordBatchBuilder> builder;
    std::unique_ptr<parquet::arrow::FileWriter> file;
};

static Status open_writer(ParquetWriter *w) {
    auto schema = finevision_schema();
    // Pictures gain nothing from a dictionary, and their least and greatest value would swell the footer.
    const std::string pictures = "images.list.element.bytes";
    auto properties = parquet::WriterProperties::Builder()
                          .compression(arrow::Compression::ZSTD)
                          ->disable_dictionary(pictures)
                          ->disable_statistics(pictures)
                          ->build();
    ARROW_ASSIGN_OR_RAISE(w->builder, arrow::RecordBatchBuilder::Make(schema, arrow::default_memory_pool()));
    ARROW_ASSIGN_OR_RAISE(w->file, parquet::arrow::FileWriter::Open(*schema, arrow::default_memory_pool(),
                                                                    w->sink, properties));
    return Status::OK();
}

bool parquet_create(ParquetWriter **out, const char *path, size_t rows_per_group, Error *err) {
    auto w = std::make_unique<ParquetWriter>();
    *out = nullptr;
    w->path = path;
    w->rows_per_group = std::max<size_t>(rows_per_group, 1);
    w->sink = std::make_shared<AtomicFile>();
    if (!file_create(&w->sink->file, path, err)) return false;
    if (!guarded(err, path, [&] { return open_writer(w.get()); })) return false;
    *out = w.release();
    return true;
}

static Status append_text(arrow::ArrayBuilder *builder, const char *text) {
    return text ? static_cast<arrow::StringBuilder *>(builder)->Append(text) : builder->AppendNull();
}

static Status append_row(ParquetWriter *w, const FineVisionRow *row) {
    auto *images = w->builder->GetFieldAs<arrow::ListBuilder>(IMAGES);
    auto *image = static_cast<arrow::StructBuilder *>(images->value_builder());
    ARROW_RETURN_NOT_OK(images->Append());
    for (size_t i = 0; i < row->n_images; i++) {
        const FineVisionImage &one = row->images[i];
        ARROW_RETURN_NOT_OK(image->Append());
        auto *bytes = static_cast<arrow::BinaryBuilder *>(image->field_builder(0));
        if (one.size > INT32_MAX) return Status::CapacityError("a picture of ", one.size, " bytes");
        ARROW_RETURN_NOT_OK(bytes->Append(static_cast<const uint8_t *>(one.bytes), (int32_t)one.size));
        ARROW_RETURN_NOT_OK(append_text(image->field_builder(1), one.path));
    }
    auto *texts = w->builder->GetFieldAs<arrow::ListBuilder>(TEXTS);
    auto *turn = static_cast<arrow::StructBuilder *>(texts->value_builder());
    ARROW_RETURN_NOT_OK(texts->Append());
    for (size_t i = 0; i < row->n_turns; i++) {
        ARROW_RETURN_NOT_OK(turn->Append());
        ARROW_RETURN_NOT_OK(append_text(turn->field_builder(0), row->turns[i].user));
        ARROW_RETURN_NOT_OK(append_text(turn->field_builder(1), row->turns[i].assistant));
    }
    ARROW_RETURN_NOT_OK(append_text(w->builder->GetField(SOURCE), row->source));
    for (size_t k = 0; k < std::size(ratings); k++) {
        auto *list = w->builder->GetFieldAs<arrow::ListBuilder>(RATINGS + (int)k);
        ARROW_RETURN_NOT_OK(list->Append());
        auto *values = static_cast<arrow::Int64Builder *>(list->value_builder());
        for (size_t i = 0; i < row->n_turns; i++)
            ARROW_RETURN_NOT_OK(values->Append(row->turns[i].*ratings[k]));
    }
    return Status::OK();
}

// Writes the waiting rows as one row group.
static Status flush_rows(ParquetWriter *w) {
    if (w->rows == 0) return Status::OK();
    w->rows = 0;
    ARROW_ASSIGN_OR_RAISE(auto batch, w->builder->Flush());
    ARROW_RETURN_NOT_OK(batch->ValidateFull()); // text that is not UTF-8 must not get into a file
    ARROW_ASSIGN_OR_RAISE(auto table, arrow::Table::FromRecordBatches({batch}));
    return w->file->WriteTable(*table, batch->num_rows());
}

bool parquet_write_row(ParquetWriter *w, const FineVisionRow *row, Error *err) {
    return guarded(err, w->path, [&] {
        ARROW_RETURN_NOT_OK(append_row(w, row));
        return ++w->rows >= w->rows_per_group ? flush_rows(w) : Status::OK();
    });
}

bool parquet_finish(ParquetWriter *w, Error *err) {
    bool ok = guarded(err, w->path, [&] {
        ARROW_RETURN_NOT_OK(flush_rows(w));
        return w->file->Close();
    });
    ok = ok && file_commit(&w->sink->file, err);
    parquet_abandon(w);
    return ok;
}

void parquet_abandon(ParquetWriter *w) {
    delete w;
}

const char *arrow_version(void) {
    return ARROW_VERSION_STRING;
}
