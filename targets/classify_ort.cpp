// Says what is on an image, with ONNX Runtime: classify IMAGE.ppm [FOLDER], FOLDER being where the model lies.
// The C++ API of ONNX Runtime: onnxruntime.ai/docs/api/c

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "classify_images.hpp"

namespace {

template <typename T>
void run(Ort::Session& session, std::vector<T> batch, const std::array<std::int64_t, 4>& shape, const std::string& folder) {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto input = Ort::Value::CreateTensor<T>(memory, batch.data(), batch.size(), shape.data(), shape.size());
    Ort::AllocatorWithDefaultOptions allocator;
    const auto source = session.GetInputNameAllocated(0, allocator), result = session.GetOutputNameAllocated(0, allocator);
    const char *sources[] = {source.get()}, *results[] = {result.get()};
    const std::vector<Ort::Value> answers = session.Run(Ort::RunOptions{}, sources, &input, 1, results, 1);
    const auto classes = answers[0].GetTensorTypeAndShapeInfo().GetShape().back();  // of [batch, classes]
    images::tell(answers[0].GetTensorData<float>(), static_cast<std::size_t>(classes), folder);
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 2 || count > 3) {
        std::fprintf(stderr, "usage: classify IMAGE.ppm [FOLDER]\n");
        return 2;
    }
    const std::string folder = std::string(count == 3 ? arguments[2] : ".") + "/";
    try {
        const auto prepared = images::prepare(images::read_ppm(arguments[1]));
#ifndef _WIN32  // onnxruntime 1.32 and later report to their maker where nothing forbids it
        setenv("ORT_DISABLE_TELEMETRY", "1", 0);
#endif
        const Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "classify");
        Ort::SessionOptions options;
        Ort::Session session(environment, (folder + preprocess::model_file).c_str(), options);
        using namespace preprocess;
        if constexpr (takes_pixels)
            run(session, images::repeated(prepared), {batch, height, width, 3}, folder);
        else
            run(session, images::normalized(prepared), {batch, 3, height, width}, folder);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "classify: %s\n", error.what());
        return 2;
    }
}
