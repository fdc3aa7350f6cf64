// Send frames to a running `pinglow serve` and print what is found, a line of JSON each.
//
//     g++ -std=c++17 -O2 predict.cpp -lcurl -o predict      (libcurl4-openssl-dev on Debian)
//     ./predict http://127.0.0.1:8080 frames/*.png
//
// One connection is kept for all frames. A token is taken from PINGLOW_TOKEN. Where the service is
// full (429) or is being started (503), the frame is sent again after the time that it asks for.
// The exit code is 1 if a frame was not answered.
#include <curl/curl.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>

namespace {

struct Answer {
    long status = 0;  // 0: the service was not reached
    std::string body;
    long retry_after = 1;  // seconds
};

size_t append(char* data, size_t, size_t size, void* to) {
    static_cast<std::string*>(to)->append(data, size);
    return size;
}

class Client {
public:
    explicit Client(std::string address) : address_(std::move(address)), curl_(curl_easy_init()) {
        headers_ = curl_slist_append(headers_, "Content-Type: application/octet-stream");
        if (const char* token = std::getenv("PINGLOW_TOKEN"))
            headers_ = curl_slist_append(
                headers_, ("Authorization: Bearer " + std::string(token)).c_str());
    }
    ~Client() {
        curl_slist_free_all(headers_);
        curl_easy_cleanup(curl_);
    }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    Answer predict(const std::string& name, const std::string& frame) {
        Answer answer;
        for (int attempt = 0; attempt < 5; ++attempt) {
            answer = send(name, frame);
            if (answer.status != 429 && answer.status != 503) break;
            std::this_thread::sleep_for(std::chrono::seconds(answer.retry_after));
        }
        return answer;
    }

private:
    Answer send(const std::string& name, const std::string& frame) {
        Answer answer;
        std::unique_ptr<char, void (*)(void*)> escaped(
            curl_easy_escape(curl_, name.c_str(), int(name.size())), curl_free);
        const std::string url = address_ + "/v1/predict?name=" + escaped.get();
        curl_easy_setopt(curl_, CURLOPT_URL, url.c_str());
        curl_easy_setopt(curl_, CURLOPT_HTTPHEADER, headers_);
        curl_easy_setopt(curl_, CURLOPT_POSTFIELDS, frame.data());
        curl_easy_setopt(curl_, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(frame.size()));
        curl_easy_setopt(curl_, CURLOPT_WRITEFUNCTION, append);
        curl_easy_setopt(curl_, CURLOPT_WRITEDATA, &answer.body);
        curl_easy_setopt(curl_, CURLOPT_TIMEOUT, 60L);
        const CURLcode code = curl_easy_perform(curl_);
        if (code != CURLE_OK) {
            answer.body = curl_easy_strerror(code);
            return answer;
        }
        curl_easy_getinfo(curl_, CURLINFO_RESPONSE_CODE, &answer.status);
        curl_off_t wait = 0;
        curl_easy_getinfo(curl_, CURLINFO_RETRY_AFTER, &wait);
        if (wait > 0) answer.retry_after = long(wait);
        return answer;
    }

    std::string address_;
    CURL* curl_;
    curl_slist* headers_ = nullptr;
};

}  // namespace

int main(int count, char** words) {
    if (count < 3) {
        std::cerr << "usage: predict ADDRESS FRAME...\n";
        return 2;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int code = 0;
    {
        Client client(words[1]);
        for (int number = 2; number < count; ++number) {
            const std::string path = words[number];
            std::ifstream file(path, std::ios::binary);
            if (!file) {
                std::cerr << path << " cannot be read\n";
                code = 1;
                continue;
            }
            const std::string frame(std::istreambuf_iterator<char>(file), {});
            const Answer answer = client.predict(path.substr(path.find_last_of('/') + 1), frame);
            if (answer.status == 200) {
                std::cout << answer.body << std::endl;
            } else {
                std::cerr << path << ": " << answer.status << ": " << answer.body << '\n';
                code = 1;
            }
        }
    }
    curl_global_cleanup();
    return code;
}
