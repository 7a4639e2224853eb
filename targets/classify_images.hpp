// Images for the example programs in C++: read, resized, cropped and normalized exactly as the model was trained.
// Standard library only, C++17. preprocess.h has this model's numbers; classify.cpp the part that depends on the runtime.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "preprocess.h"

namespace images {

// RGB, 8 bit, rows from top to bottom, three bytes a pixel.
struct Image {
    int height = 0, width = 0;
    std::vector<std::uint8_t> pixels;

    Image(int rows, int columns)
        : height(rows), width(columns), pixels(static_cast<std::size_t>(rows) * columns * 3) {}
    std::uint8_t* at(int y, int x) { return &pixels[(static_cast<std::size_t>(y) * width + x) * 3]; }
    const std::uint8_t* at(int y, int x) const { return &pixels[(static_cast<std::size_t>(y) * width + x) * 3]; }
};

// Of an image: where kdc, too, stops reading.
constexpr std::int64_t most_pixels = 178956970;

inline std::int64_t header_number(std::istream& file) {
    while (file >> std::ws && file.peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    std::int64_t value = 0;
    if (!(file >> value)) throw std::runtime_error("the image's header is damaged");
    return value;
}

// A value of an image whose largest one is `highest`, as a byte. Where it is more than 255, the image is grey, and
// what is black and what is white says preprocess.h.
inline std::uint8_t as_byte(std::int64_t value, std::int64_t highest) {
    auto scaled = [&](double most) {  // half to even, as Python rounds
        return std::min(most, std::nearbyint(static_cast<double>(value) / static_cast<double>(highest) * most));
    };
    if (highest <= 255) return static_cast<std::uint8_t>(highest == 255 ? value : scaled(255));
    const double wide = highest == 65535 ? static_cast<double>(value) : scaled(65535);
    const double range = preprocess::white - preprocess::black;
    return static_cast<std::uint8_t>(std::clamp(std::floor((wide - preprocess::black) * 255 / range + 0.5), 0.0, 255.0));
}

// A binary PPM of 8 bit, or a PGM of 8 or 16. Anything else becomes one with, for example: convert photo.jpg photo.ppm
inline Image read_ppm(const std::string& path) {
    std::error_code none;
    if (std::filesystem::exists(path, none) && !std::filesystem::is_regular_file(path, none))
        throw std::runtime_error(path + " is no regular file");
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path);
    char magic[2] = {};
    file.read(magic, 2);
    const bool grey = magic[1] == '5';
    if (magic[0] != 'P' || (magic[1] != '6' && !grey)) throw std::runtime_error(path + " is no binary PPM or PGM (P6, P5)");
    const std::int64_t width = header_number(file), height = header_number(file), highest = header_number(file);
    if (width < 1 || height < 1 || width > most_pixels || height > most_pixels || width * height > most_pixels)
        throw std::runtime_error(path + " has no pixels, or more than 178,956,970, the most that is read");
    if (highest < 1 || highest > (grey ? 65535 : 255))
        throw std::runtime_error(path + " is no PPM of 8 bit, and no PGM of 8 or 16");
    file.get();
    const std::int64_t step = highest > 255 ? 2 : 1, line = width * step * (grey ? 1 : 3);
    if (static_cast<std::int64_t>(std::filesystem::file_size(path)) - file.tellg() < line * height)
        throw std::runtime_error(path + " ends too early");
    Image image(static_cast<int>(height), static_cast<int>(width));
    std::vector<std::uint8_t> row(static_cast<std::size_t>(line));
    for (int y = 0; y < image.height; ++y) {
        file.read(reinterpret_cast<char*>(row.data()), static_cast<std::streamsize>(line));
        for (int x = 0; x < image.width; ++x)
            for (int c = 0; c < 3; ++c) {
                const std::size_t offset = static_cast<std::size_t>((grey ? x : std::int64_t{x} * 3 + c) * step);
                const std::int64_t value = step == 2 ? row[offset] * 256 + row[offset + 1] : row[offset];
                image.at(y, x)[c] = as_byte(value, highest);
            }
    }
    if (!file) throw std::runtime_error(path + " ends too early");
    return image;
}

constexpr double pi = 3.14159265358979323846;

inline double sinc(double x) { return x == 0 ? 1 : std::sin(x * pi) / (x * pi); }

// The filters of Pillow's resize: the weight at distance x, in pixels of the smaller image.
inline double weight(const std::string& filter, double x) {
    if (filter == "box") return x > -0.5 && x <= 0.5 ? 1 : 0;
    if (filter == "lanczos") return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
    x = std::abs(x);
    if (filter == "bilinear") return x < 1 ? 1 - x : 0;
    if (filter == "hamming") return x < 1 ? sinc(x) * (0.54 + 0.46 * std::cos(x * pi)) : 0;
    const double a = -0.5;  // bicubic
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

inline double support(const std::string& filter) {
    if (filter == "box") return 0.5;
    if (filter == "bicubic") return 2;
    return filter == "lanczos" ? 3 : 1;
}

// What one row (or column) of the result is made of: the first one, and the weights, which sum to 1 << 22.
struct Window {
    std::int64_t first = 0;
    std::vector<std::int64_t> weights;
};

// The part of one axis that a crop keeps of a resized image, which is `total` long.
struct Part {
    std::int64_t total = 0, first = 0;
    int count = 0;
};

inline std::vector<Window> windows(int from, const Part& to, const std::string& filter) {
    std::vector<Window> result;
    const double scale = static_cast<double>(from) / static_cast<double>(to.total), wide = std::max(scale, 1.0);
    const bool summed = to.total <= 1 << 17;  // the places of the nearest pixel, as Pillow does it
    double position = scale * 0.5;
    for (std::int64_t index = 0; summed && index < to.first; ++index) position += scale;
    for (std::int64_t index = to.first; index < to.first + to.count; ++index, position += scale) {
        Window window;
        const double centre = (static_cast<double>(index) + 0.5) * scale, reach = support(filter) * wide;
        if (from == to.total) {
            window.first = index;
            window.weights = {std::int64_t{1} << 22};
        } else if (filter == "nearest") {
            window.first = std::min<std::int64_t>(static_cast<std::int64_t>(summed ? position : centre), from - 1);
            window.weights = {std::int64_t{1} << 22};
        } else {
            window.first = std::max<std::int64_t>(0, static_cast<std::int64_t>(centre - reach + 0.5));
            const auto last = std::min<std::int64_t>(from, static_cast<std::int64_t>(centre + reach + 0.5));
            std::vector<double> raw;
            for (std::int64_t x = window.first; x < last; ++x)
                raw.push_back(weight(filter, (static_cast<double>(x) - centre + 0.5) / wide));
            const double total = std::accumulate(raw.begin(), raw.end(), 0.0);
            for (double share : raw) window.weights.push_back(std::llround(share / total * (1 << 22)));
        }
        result.push_back(std::move(window));
    }
    return result;
}

// As Pillow resizes, to the last bit: across, then down, rounded to a byte after each. Of the result only those rows
// and columns that a crop keeps: a long strip, resized as a whole, may take gigabytes.
inline Image resize(const Image& source, const Part& down, const Part& right, const std::string& filter) {
    auto sum = [](const Window& window, const std::uint8_t* first, std::size_t step) {
        std::int64_t total = 1 << 21;
        for (std::size_t index = 0; index < window.weights.size(); ++index)
            total += window.weights[index] * first[index * step];
        return static_cast<std::uint8_t>(std::clamp<std::int64_t>(total >> 22, 0, 255));
    };
    const auto columns = windows(source.width, right, filter), rows = windows(source.height, down, filter);
    std::int64_t low = source.height, high = 0;
    for (const Window& row : rows) {
        low = std::min(low, row.first);
        high = std::max(high, row.first + static_cast<std::int64_t>(row.weights.size()));
    }
    Image across(static_cast<int>(high - low), right.count), result(down.count, right.count);
    for (int y = 0; y < across.height; ++y)
        for (int x = 0; x < right.count; ++x)
            for (int c = 0; c < 3; ++c)
                across.at(y, x)[c] =
                    sum(columns[x], source.at(static_cast<int>(low) + y, static_cast<int>(columns[x].first)) + c, 3);
    for (int y = 0; y < down.count; ++y)
        for (int x = 0; x < right.count; ++x)
            for (int c = 0; c < 3; ++c)
                result.at(y, x)[c] = sum(rows[y], across.at(static_cast<int>(rows[y].first - low), x) + c,
                                         static_cast<std::size_t>(right.count) * 3);
    return result;
}

inline Image centre_crop(const Image& source, int height, int width) {
    Image result(height, width);  // black where the source is smaller
    // Half to even, as Python rounds.
    auto offset = [](int have, int want) {
        return have >= want ? static_cast<int>(std::nearbyint((have - want) / 2.0)) : -((want - have) / 2);
    };
    const int top = offset(source.height, height), left = offset(source.width, width);
    for (int y = std::max(0, -top); y < height && y + top < source.height; ++y)
        for (int x = std::max(0, -left); x < width && x + left < source.width; ++x)
            std::copy_n(source.at(y + top, x + left), 3, result.at(y, x));
    return result;
}

// The middle of a side, as the crop takes it.
inline Part middle(std::int64_t total, int crop) {
    const double start = std::nearbyint(static_cast<double>(total - crop) / 2.0);
    return {total, std::max<std::int64_t>(0, static_cast<std::int64_t>(start)),
            static_cast<int>(std::min<std::int64_t>(crop, total))};
}

// Resized and cropped to the model's size.
inline Image prepare(const Image& source) {
    using namespace preprocess;
    std::int64_t to_height = resize_height, to_width = resize_width;
    if (keep_aspect && resize_height != resize_width) {
        const double ratio = std::min(static_cast<double>(source.height) / resize_height,
                                      static_cast<double>(source.width) / resize_width);
        to_height = std::max<std::int64_t>(1, static_cast<std::int64_t>(std::nearbyint(source.height / ratio)));
        to_width = std::max<std::int64_t>(1, static_cast<std::int64_t>(std::nearbyint(source.width / ratio)));
    } else if (keep_aspect && source.height <= source.width) {
        to_width = static_cast<std::int64_t>(static_cast<double>(resize_height) * source.width / source.height);
    } else if (keep_aspect) {
        to_height = static_cast<std::int64_t>(static_cast<double>(resize_height) * source.height / source.width);
    }
    const auto kept = resize(source, middle(to_height, height), middle(to_width, width), interpolation);
    return centre_crop(kept, height, width);
}

// float32 [batch, 3, height, width], the image repeated to fill the batch.
inline std::vector<float> normalized(const Image& prepared) {
    std::vector<float> planes;
    for (int copy = 0; copy < preprocess::batch; ++copy)
        for (int c = 0; c < 3; ++c)
            for (std::size_t index = static_cast<std::size_t>(c); index < prepared.pixels.size(); index += 3)
                planes.push_back((static_cast<float>(prepared.pixels[index]) / 255.0f - preprocess::mean[c]) /
                                 preprocess::std_dev[c]);
    return planes;
}

// uint8 [batch, height, width, 3], for a model that normalizes by itself.
inline std::vector<std::uint8_t> repeated(const Image& prepared) {
    std::vector<std::uint8_t> pixels;
    for (int copy = 0; copy < preprocess::batch; ++copy)
        pixels.insert(pixels.end(), prepared.pixels.begin(), prepared.pixels.end());
    return pixels;
}

// A name in UTF-8 with what acts on a terminal (control characters, line ends, changes of direction) as visible escapes.
inline std::string shown(const std::string& name) {
    std::string text;
    char escape[8];
    for (std::size_t at = 0; at < name.size(); ++at) {
        const auto byte = [&](std::size_t i) { return i < name.size() ? static_cast<unsigned char>(name[i]) : 0u; };
        const unsigned first = byte(at), next = byte(at + 1);
        const unsigned code = 0x2000u | (next & 0x3f) << 6 | (byte(at + 2) & 0x3f);  // where it begins with e2
        if (first < 0x20 || first == 0x7f) {
            std::snprintf(escape, sizeof escape, "\\x%02x", first);
            text += escape;
        } else if (first == 0xc2 && next >= 0x80 && next < 0xa0) {
            std::snprintf(escape, sizeof escape, "\\x%02x", next);
            text += escape;
            at += 1;
        } else if (first == 0xe2 && at + 2 < name.size() &&
                   ((code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069))) {
            std::snprintf(escape, sizeof escape, "\\u%04x", code);
            text += escape;
            at += 2;
        } else {
            text += name[at];
        }
    }
    return text;
}

// Prints the likeliest of the `count` classes with their probabilities, softmax(logits); `folder` ends in a slash.
inline void tell(const float* logits, std::size_t count, const std::string& folder, std::size_t top = 5) {
    std::ifstream file(folder + "labels.txt", std::ios::binary);
    std::vector<std::string> labels;
    for (std::string line; std::getline(file, line);) {
        if (!line.empty() && line.back() == '\r') line.pop_back();
        labels.push_back(line);
    }
    if (labels.empty()) throw std::runtime_error("cannot read " + folder + "labels.txt");
    if (labels.size() != count)
        throw std::runtime_error("labels.txt names " + std::to_string(labels.size()) + " classes, the model answers " +
                                 std::to_string(count));
    std::vector<std::size_t> order(labels.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
    double total = 0;
    for (std::size_t index : order) total += std::exp(static_cast<double>(logits[index]) - logits[order[0]]);
    for (std::size_t rank = 0; rank < std::min(top, order.size()); ++rank) {
        const std::size_t index = order[rank];
        const double share = std::exp(static_cast<double>(logits[index]) - logits[order[0]]) / total;
        std::printf("%6.2f%%  %s\n", 100 * share, shown(labels[index]).c_str());
    }
}

}  // namespace images
